//! SHA-256 of two messages at once. The processor's own instructions for it depend on each other's results, so that one
//! message uses about half of what they could do: with a second one between, both take little longer than one alone
//! (docs/speed.md). No crate does that. It is written for x86_64 alone, and for processors that have the instructions.
//!
//! After FIPS 180-4; the instructions are those of Intel's SHA extensions (Intel SDM, volume 2: SHA256RNDS2, SHA256MSG1,
//! SHA256MSG2), which take a state as two vectors.

/// Whether two are hashed at once here.
#[cfg(target_arch = "x86_64")]
pub(super) fn is_there() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3")
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn is_there() -> bool {
    false
}

/// The digests of two messages of one length, a whole number of 64 bytes; `None` for others, and where it is not there.
#[cfg(target_arch = "x86_64")]
pub(super) fn digests(messages: [&[u8]; 2]) -> Option<[[u8; 32]; 2]> {
    let [(one, rest), (other, others_rest)] = messages.map(<[u8]>::as_chunks);
    let is_whole = rest.is_empty() && others_rest.is_empty() && one.len() == other.len();
    if !is_whole || !is_there() {
        return None;
    }
    // SAFETY: the processor was asked for these instructions.
    #[expect(unsafe_code, reason = "no safe call knows that the processor was asked")]
    Some(unsafe { x86::digests([one, other]) })
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn digests(_: [&[u8]; 2]) -> Option<[[u8; 32]; 2]> {
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32,
    };

    /// FIPS 180-4, 4.2.2.
    #[rustfmt::skip]
    const K: [u32; 64] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ];
    /// FIPS 180-4, 5.3.3: the words A to H.
    const START: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];

    /// A message's state, as the instructions take it: the first letter's word is the highest.
    #[derive(Clone, Copy)]
    struct State {
        abef: __m128i,
        cdgh: __m128i,
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    pub(super) fn digests(messages: [&[[u8; 64]]; 2]) -> [[u8; 32]; 2] {
        let [a, b, c, d, e, f, g, h] = START;
        let start = State { abef: vector([f, e, b, a]), cdgh: vector([h, g, d, c]) };
        let mut states = [start; 2];
        for (one, other) in messages[0].iter().zip(messages[1]) {
            compress(&mut states, [one, other]);
        }
        // FIPS 180-4, 5.1.1: a bit, zeros, and the length in bits.
        let mut last = [0; 64];
        last[0] = 0x80;
        last[56..].copy_from_slice(&(messages[0].len() as u64 * 512).to_be_bytes());
        compress(&mut states, [&last; 2]);
        [digest(states[0]), digest(states[1])]
    }

    /// The lowest word first.
    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn vector([w0, w1, w2, w3]: [u32; 4]) -> __m128i {
        _mm_set_epi32(w3.cast_signed(), w2.cast_signed(), w1.cast_signed(), w0.cast_signed())
    }

    /// Sixteen bytes of a block as four words.
    #[inline]
    #[target_feature(enable = "ssse3")]
    fn words(block: &[u8; 64], number: usize) -> __m128i {
        let as_big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let sixteen = _mm_set_epi64x(half(block, 16 * number + 8), half(block, 16 * number));
        _mm_shuffle_epi8(sixteen, as_big_endian)
    }

    #[inline]
    fn half(block: &[u8; 64], at: usize) -> i64 {
        let b = block;
        i64::from_le_bytes([
            b[at],
            b[at + 1],
            b[at + 2],
            b[at + 3],
            b[at + 4],
            b[at + 5],
            b[at + 6],
            b[at + 7],
        ])
    }

    /// Of a message's schedule the last sixteen words.
    type Schedule = [__m128i; 4];

    #[inline]
    #[target_feature(enable = "ssse3")]
    fn schedule(block: &[u8; 64]) -> Schedule {
        [words(block, 0), words(block, 1), words(block, 2), words(block, 3)]
    }

    /// Four rounds of a message.
    #[inline]
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn rounds<const NUMBER: usize>(state: &mut State, schedule: &mut Schedule, k: __m128i) {
        let oldest = schedule[NUMBER % 4];
        let four = if NUMBER < 4 {
            oldest
        } else {
            let (old, young, youngest) =
                (schedule[(NUMBER + 1) % 4], schedule[(NUMBER + 2) % 4], schedule[(NUMBER + 3) % 4]);
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(oldest, old), _mm_alignr_epi8::<4>(youngest, young));
            _mm_sha256msg2_epu32(sum, youngest)
        };
        schedule[NUMBER % 4] = four;
        let four = _mm_add_epi32(four, k);
        state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, four);
        state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32::<0x0e>(four));
    }

    /// FIPS 180-4, 6.2.2, of a block of each message. Without loops, closures or methods of arrays: a call that the compiler
    /// does not resolve puts the state into memory, and makes it thirty times as slow.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn compress(states: &mut [State; 2], blocks: [&[u8; 64]; 2]) {
        let [mut one, mut other] = *states;
        let (mut ones, mut others) = (schedule(blocks[0]), schedule(blocks[1]));
        macro_rules! all {
            ($($number:literal)*) => { $(
                let k = vector([K[4 * $number], K[4 * $number + 1], K[4 * $number + 2], K[4 * $number + 3]]);
                rounds::<$number>(&mut one, &mut ones, k);
                rounds::<$number>(&mut other, &mut others, k);
            )* };
        }
        all!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        *states = [sum(states[0], one), sum(states[1], other)];
    }

    #[inline]
    #[target_feature(enable = "sse4.1")]
    fn sum(one: State, other: State) -> State {
        State { abef: _mm_add_epi32(one.abef, other.abef), cdgh: _mm_add_epi32(one.cdgh, other.cdgh) }
    }

    #[target_feature(enable = "sse4.1")]
    fn digest(state: State) -> [u8; 32] {
        let State { abef, cdgh } = state;
        let words = [
            _mm_extract_epi32::<3>(abef),
            _mm_extract_epi32::<2>(abef),
            _mm_extract_epi32::<3>(cdgh),
            _mm_extract_epi32::<2>(cdgh),
            _mm_extract_epi32::<1>(abef),
            _mm_extract_epi32::<0>(abef),
            _mm_extract_epi32::<1>(cdgh),
            _mm_extract_epi32::<0>(cdgh),
        ];
        let mut bytes = [0; 32];
        for (four, word) in bytes.chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    fn message(length: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn two_digests_are_those_of_each() {
        for length in [0, 64, 128, 4096, 524_288] {
            let two = [message(length, 1), message(length, 2)];
            let Some(told) = digests([&two[0], &two[1]]) else {
                assert!(!is_there());
                return;
            };
            assert_eq!(told, two.map(|message| <[u8; 32]>::from(Sha256::digest(message))), "{length}");
        }
        // Of what it does not take it says nothing.
        let odd = message(130, 3);
        assert_eq!(digests([&odd, &odd]), None);
        assert_eq!(digests([&odd[..64], &odd[..128]]), None);
    }
}
