# Makes a whole disk out of a root's tree with the system's own tools, as foreign.rs describes it in the environment:
#   DISK      the disk file, which is there and full of noise
#   TREE      the root's files
#   TABLE     gpt, mbr or none
#   ROOT      ext4, xfs, btrfs-subvolumes (`@` and `@home` by fstab) or btrfs-default
#             (`root`, the default subvolume)
#   BOOT ESP  yes: a /boot of its own (ext4); an EFI system partition
#   NAMES     uuid, label, partuuid or device: how fstab names what it mounts, and `root=` but for device
# Runs in a mount namespace of its own, with a folder WORK of its own; then LOADER, a piece of shell, makes it boot. It has:
#   $root     the mounted root with its /boot       $esp       the EFI system partition, as `mtools -i` wants it
#   $version  the kernel's                          $boot_uuid the file system that holds /boot
#   $place    /boot in that file system, as GRUB sees it       $arguments  root= and its flags
#   $gap      the first sector of the room for a BIOS core and $room, the sectors it has
set -euo pipefail
export MTOOLS_SKIP_CHECK=1 LC_ALL=C

declare -A at size number
next=1
rows=
part() { # ROLE NUMBER MIB TYPE
  at[$1]=$next size[$1]=$3 number[$1]=$2
  rows+="$2: start=$((next * 2048)), size=$(($3 * 2048)), type=$4"$'\n'
  next=$((next + $3))
}
total=$(($(stat -c %s "$DISK") / 1048576))
case $TABLE in
  gpt)
    part bios 14 3 21686148-6449-6E6F-744E-656564454649
    [ "$ESP" = yes ] && part esp 15 64 C12A7328-F81F-11D2-BA4B-00A0C93EC93B
    [ "$BOOT" = yes ] && part boot 16 192 0FC63DAF-8483-4772-8E79-3D69D8477DE4
    part root 1 $((total - next - 1)) 4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
    gap=2048 room=6144
    ;;
  mbr)
    last=1
    [ "$ESP" = yes ] && { part esp $last 64 ef; last=$((last + 1)); }
    [ "$BOOT" = yes ] && { part boot $last 192 83; last=$((last + 1)); }
    part root $last $((total - next)) 83
    gap=1 room=2047
    ;;
  none)
    at[root]=0 size[root]=$total number[root]=0
    gap=0 room=0
    ;;
esac
if [ "$TABLE" != none ]; then
  sfdisk --quiet --no-reread --no-tell-kernel --wipe always "$DISK" <<<"label: ${TABLE/mbr/dos}"$'\n'"$rows"
fi

nodes=()
finish() {
  mountpoint -q "$root" && umount -R "$root"
  for node in "${nodes[@]}"; do losetup -d "$node"; done
}
root=$WORK/root
mkdir "$root"
trap finish EXIT
device() { # ROLE: its loop device in $node
  node=$(losetup --find --show --offset $((at[$1] * 1048576)) --sizelimit $((size[$1] * 1048576)) "$DISK")
  nodes+=("$node")
}
name() { # ROLE NODE LABEL: how fstab names it
  case $NAMES in
    uuid) echo "UUID=$(blkid -p -s UUID -o value "$2")" ;;
    label) echo "LABEL=$3" ;;
    partuuid)
      if [ "$TABLE" = gpt ]; then
        echo "PARTUUID=$(sfdisk --part-uuid "$DISK" "${number[$1]}" | tr A-Z a-z)"
      else
        printf 'PARTUUID=%s-%02x\n' "$(sfdisk --disk-id "$DISK" | sed s/^0x//)" "${number[$1]}"
      fi
      ;;
    # The name that EC2's current machines and QEMU's NVMe disk give.
    device) if [ "${number[$1]}" = 0 ]; then echo /dev/nvme0n1; else echo "/dev/nvme0n1p${number[$1]}"; fi ;;
  esac
}

device root
root_node=$node flags= subvolume=
case $ROOT in
  ext4) mke2fs -q -F -t ext4 -L rootfs -E nodiscard "$root_node" ;;
  xfs) mkfs.xfs -q -f -K -L rootfs "$root_node" ;;
  btrfs*) mkfs.btrfs -q -f -K -L rootfs "$root_node" ;;
esac
kind=${ROOT%%-*}
mount -t "$kind" "$root_node" "$root"
case $ROOT in
  btrfs-subvolumes)
    btrfs -q subvolume create "$root/@"
    btrfs -q subvolume create "$root/@home"
    subvolume=/@ flags=subvol=@
    ;;
  btrfs-default)
    btrfs -q subvolume create "$root/root"
    btrfs subvolume set-default "$root/root"
    subvolume=/root
    ;;
esac
if [ -n "$subvolume" ]; then
  umount "$root"
  mount -t btrfs -o "$flags" "$root_node" "$root"
fi
fstab="$(name root "$root_node" rootfs) / $kind ${flags:-defaults} 0 1"$'\n'
boot_uuid=$(blkid -p -s UUID -o value "$root_node")
place=$subvolume/boot
if [ "$ROOT" = btrfs-subvolumes ]; then
  mkdir "$root/home"
  mount -t btrfs -o subvol=@home "$root_node" "$root/home"
  fstab+="$(name root "$root_node" rootfs) /home btrfs subvol=@home 0 0"$'\n'
fi
if [ "$BOOT" = yes ]; then
  device boot
  mke2fs -q -F -t ext4 -L boot -E nodiscard "$node"
  mkdir "$root/boot"
  mount -t ext4 "$node" "$root/boot"
  boot_uuid=$(blkid -p -s UUID -o value "$node") place=
  fstab+="$(name boot "$node" boot) /boot ext4 defaults 0 2"$'\n'
fi
esp=
if [ "$ESP" = yes ]; then
  esp=$DISK@@$((at[esp] * 1048576))
  mformat -i "$esp" -F -T $((size[esp] * 2048)) -h 255 -s 63 -H $((at[esp] * 2048)) -v UEFI ::
  device esp
  fstab+="$(name esp "$node" UEFI) /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=10 0 0"$'\n'
fi
cp -a --sparse=always "$TREE/." "$root"
mkdir -p "$root/boot/efi"
printf %s "$fstab" >"$root/etc/fstab"
rm -rf "$root/boot/grub"
version=$(basename "$root"/usr/lib/modules/*)
arguments="root=$(NAMES=${NAMES/device/uuid} name root "$root_node" rootfs)${flags:+ rootflags=$flags}"
arguments+=" ro console=tty0 console=ttyS0,115200n8"

grub_core() { # PLATFORM MODULE: a menu, and $WORK/core that finds it
  mkdir -p "$root/boot/grub"
  cat >"$root/boot/grub/grub.cfg" <<END
set timeout=0
menuentry 'Foreign Linux' {
	search --no-floppy --fs-uuid --set=root $boot_uuid
	linux $place/vmlinuz-$version $arguments
	initrd $place/initrd.img-$version
}
END
  cat >"$WORK/early.cfg" <<END
search.fs_uuid $boot_uuid root
set prefix=(\$root)$place/grub
configfile (\$root)$place/grub/grub.cfg
END
  grub-mkimage -O "$1" -p /boot/grub -d "$root/usr/lib/grub/$1" -c "$WORK/early.cfg" -o "$WORK/core" "$2" \
    part_gpt part_msdos ext2 xfs btrfs fat search search_fs_uuid search_label normal configfile linux serial terminal \
    echo test ls gzio boot loadenv regexp all_video
}
# The offsets are those that grub-bios-setup writes (GRUB's include/grub/i386/pc/boot.h and include/grub/offsets.h).
grub_bios() {
  grub_core i386-pc biosdisk
  local sectors=$((($(stat -c %s "$WORK/core") + 511) / 512))
  [ $sectors -le $room ]
  truncate -s $((sectors * 512)) "$WORK/core"
  { little $((gap + 1)) 8; little $((sectors - 1)) 2; little 0x820 2; } | put "$WORK/core" 500
  dd if="$WORK/core" of="$DISK" bs=512 seek=$gap conv=notrunc status=none
  # The first 440 bytes are the boot code's; the disk's signature and the table follow.
  head -c 440 "$root/usr/lib/grub/i386-pc/boot.img" >"$WORK/mbr"
  little $gap 8 | put "$WORK/mbr" 92
  printf '\xff' | put "$WORK/mbr" 100
  printf '\x90\x90' | put "$WORK/mbr" 102
  put "$DISK" 0 <"$WORK/mbr"
}
little() { # VALUE BYTES
  local value=$(($1)) text= n
  for ((n = 0; n < $2; n++)); do
    printf -v text '%s\\x%02x' "$text" $((value & 255))
    value=$((value >> 8))
  done
  printf "$text"
}
put() { dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
grub_uefi() {
  grub_core x86_64-efi efi_gop
  mmd -i "$esp" ::EFI ::EFI/BOOT
  mcopy -i "$esp" "$WORK/core" ::EFI/BOOT/BOOTX64.EFI
}
eval "$LOADER"
umount -R "$root"
