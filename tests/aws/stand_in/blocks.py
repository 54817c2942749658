"""The blocks of a snapshot: bytes in a sparse file that has no name, so that nothing stays when the process is killed. What a
block means, who may read it and whether it is complete say others."""

import base64
import hashlib
import os
import tempfile

from .world import WORLD

BLOCK_SIZE = 524288
# So that a disk can be read where data is and not where holes are.
_HOLE = bytes(BLOCK_SIZE)
_DIGEST_OF_A_HOLE = hashlib.sha256(_HOLE).digest()


class File:
    """A sparse file, block by block at its offset. It goes with the last that refers to it."""

    def __init__(self):
        self._file = tempfile.TemporaryFile(prefix="stand-in-", dir=WORLD.folder)

    def write(self, index, data):
        os.pwrite(self._file.fileno(), data, index * BLOCK_SIZE)

    def read(self, index):
        data = os.pread(self._file.fileno(), BLOCK_SIZE, index * BLOCK_SIZE)
        return data + bytes(BLOCK_SIZE - len(data))


class Blocks:
    """Index → (file, digest). A child begins with its parent's, by reference: a snapshot's content never changes."""

    def __init__(self, parent=None):
        self._file = None
        self.all = dict(parent.all) if parent is not None else {}
        # Those that were written here and not inherited.
        self.own = set()
        # Those that somebody has asked for.
        self.answered = set()

    def put(self, index, data, digest):
        if self._file is None:
            self._file = File()
        # Where nothing was written the file has zeros, and needs no room.
        if data != _HOLE or index in self.own:
            self._file.write(index, data)
        self.all[index] = (self._file, digest)
        self.own.add(index)

    def get(self, index):
        """(bytes, digest), or None for a block that was never written."""
        entry = self.all.get(index)
        return None if entry is None else (entry[0].read(index), entry[1])

    def is_first_answer(self, index):
        """Whether nobody has asked this before of this block."""
        is_first = index not in self.answered
        self.answered.add(index)
        return is_first

    def damage(self, checksum_too):
        """What a store may do: the first block that was put is another. Its digest too, or it stays that of the old one."""
        index = min(self.own)
        data, digest = self.get(index)
        data = bytes([data[0] ^ 0xFF]) + data[1:]
        self.put(index, data, hashlib.sha256(data).digest() if checksum_too else digest)

    def linear_checksum(self):
        """Over the blocks that were written here, ascending: SHA-256 of their raw digests, as base64."""
        whole = hashlib.sha256()
        for index in sorted(self.own):
            whole.update(self.all[index][1])
        return base64.b64encode(whole.digest()).decode()

    def differing(self, other):
        """The indexes at which `other` has another block or none."""
        return sorted(i for i, entry in self.all.items() if other.all.get(i) != entry)

    @classmethod
    def of_disk(cls, path, holes_too=False):
        """A disk file's. Holes become absent blocks, or blocks of zeros where `holes_too` says so."""
        blocks = cls()
        with open(path, "rb") as disk:
            size, index = os.fstat(disk.fileno()).st_size, 0
            while index * BLOCK_SIZE < size:
                data = os.pread(disk.fileno(), BLOCK_SIZE, index * BLOCK_SIZE)
                data += bytes(BLOCK_SIZE - len(data))
                if data != _HOLE:
                    blocks.put(index, data, hashlib.sha256(data).digest())
                elif holes_too:
                    blocks.put(index, data, _DIGEST_OF_A_HOLE)
                index += 1
        return blocks

    def to_disk(self, path, gib, noise=True):
        """Writes a volume of `gib` GiB as a raw file. A block that was never written reads as noise: absent is not zero
        (docs/what-aws-has-seen.md), and whoever counts on it must see that here."""
        with open(path, "wb") as disk:
            disk.truncate(gib << 30)
            for index in range((gib << 30) // BLOCK_SIZE):
                entry = self.all.get(index)
                if entry is not None:
                    data = entry[0].read(index)
                    if data != _HOLE:
                        os.pwrite(disk.fileno(), data, index * BLOCK_SIZE)
                elif noise:
                    os.pwrite(disk.fileno(), os.urandom(4096) * (BLOCK_SIZE // 4096), index * BLOCK_SIZE)
