//! Randomness whose bytes are the same on every machine and in every build.
//!
//! ChaCha8 is specified bit by bit; the distributions on top are a few integer operations written here, because those of the `rand` crate may
//! change between versions and floating-point `ln` and `pow` differ between platforms. Nothing in the traffic model draws from anything else.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// A seeded stream of random numbers.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// Streams of one seed are independent of each other: drawing more from one never shifts another.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(stream);
        Self(generator)
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 16 random bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Uniform in `0..bound`; 0 if `bound` is 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.0.next_u32()) * u64::from(bound)) >> 32) as u32
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&mut self, per_thousand: u32) -> bool {
        self.below(1000) < per_thousand
    }

    /// Uniform in `low..high`; `low` if that is empty. Spans of up to 2^32 (as milliseconds: 49 days).
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = u32::try_from(high - low).unwrap_or(0);
        low + i64::from(self.below(span))
    }

    /// In `low..high`, the small far more often than the large (the cube of a uniform number: the mean is a quarter of the way up).
    /// Pauses, delays and visits of people look like that.
    pub(crate) fn skewed(&mut self, low: i64, high: i64) -> i64 {
        let unit = u64::from(self.0.next_u32());
        let cube = (((unit * unit) >> 32) * unit) >> 32;
        let span = u64::try_from(high - low).unwrap_or(0) & u64::from(u32::MAX);
        low + ((cube * span) >> 32) as i64
    }

    /// Log-normal in shape: half lie below the median, and a standard deviation is so many sixteenths of an octave. Times between what people do
    /// look like that. The normal number is a sum of fair bits, so that it needs no logarithm.
    pub(crate) fn log_normal(&mut self, median: i64, octaves_16: i64) -> i64 {
        let bits = self.bits();
        // 36 fair bits have a mean of 18 and a standard deviation of 3; the rest of the bits fills the steps between them.
        let heads = i64::from((bits & 0xf_ffff_ffff).count_ones()) - 18;
        let deviation_256 = heads * 256 + (bits >> 56) as i64 - 128;
        times_exp2(median, deviation_256 * octaves_16 / 48)
    }
}

/// 2^(k/16), k from 0 to 16, in units of 1/65536.
const SIXTEENTHS: [u64; 17] = [
    65_536, 68_438, 71_468, 74_632, 77_936, 81_386, 84_990, 88_752, 92_682, 96_785, 101_070,
    105_545, 110_218, 115_098, 120_194, 125_515, 131_072,
];

/// `number` times 2^(`octaves_256` / 256), in integers, to a few parts in ten thousand.
pub(crate) fn times_exp2(number: i64, octaves_256: i64) -> i64 {
    let whole = octaves_256.div_euclid(256).clamp(-40, 20);
    let rest = octaves_256.rem_euclid(256) as usize;
    let (low, high) = (SIXTEENTHS[rest / 16], SIXTEENTHS[rest / 16 + 1]);
    let factor = low + (high - low) * (rest as u64 % 16) / 16;
    let scaled = (u128::from(number.unsigned_abs()) * u128::from(factor)) << 20;
    (scaled >> (36 - whole)).try_into().unwrap_or(i64::MAX)
}

/// Draws from a fixed discrete distribution in constant time (Vose's alias method, in integers).
pub(crate) struct Weighted {
    cells: Vec<Cell>,
}

struct Cell {
    /// Chance to stay in this cell, of 2^32.
    stay: u64,
    otherwise: u32,
}

impl Weighted {
    /// One outcome for each weight.
    pub(crate) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Vec<u128> = weights.into_iter().map(u128::from).collect();
        let total: u128 = weights.iter().sum();
        assert!(total > 0, "a distribution needs a weight above zero");
        let count = weights.len() as u128;
        // In units of 1/2^32 of a cell.
        let mut left: Vec<u128> = weights
            .iter()
            .map(|weight| ((weight * count) << 32) / total)
            .collect();
        let mut cells: Vec<Cell> = (0..weights.len() as u32)
            .map(|index| Cell {
                stay: 1 << 32,
                otherwise: index,
            })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&index| left[index] < 1 << 32);
        while let (Some(&under), Some(&over)) = (small.last(), large.last()) {
            small.pop();
            cells[under] = Cell {
                stay: left[under] as u64,
                otherwise: over as u32,
            };
            left[over] -= (1 << 32) - left[under];
            if left[over] < 1 << 32 {
                large.pop();
                small.push(over);
            }
        }
        Self { cells }
    }

    /// Zipf-Mandelbrot: the outcome of rank r (from 0) has weight 1 / (r + 1 + flatter). Zero is Zipf itself; more makes the head less steep.
    pub(crate) fn zipf(outcomes: u32, flatter: u32) -> Self {
        Self::new((0..outcomes).map(|rank| zipf_weight(rank, flatter)))
    }

    /// One outcome.
    pub(crate) fn draw(&self, random: &mut Random) -> u32 {
        let bits = random.bits();
        let index = (((bits >> 32) * self.cells.len() as u64) >> 32) as u32;
        let cell = &self.cells[index as usize];
        if bits & u64::from(u32::MAX) < cell.stay {
            index
        } else {
            cell.otherwise
        }
    }
}

/// Weight of a rank (from 0) in a Zipf-Mandelbrot distribution.
pub(crate) fn zipf_weight(rank: u32, flatter: u32) -> u32 {
    u32::MAX / (rank + 1 + flatter)
}

/// A well-mixed hash of one number (splitmix64): what is fixed about user 17 is computed from it, not stored.
pub(crate) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_pinned_one() {
        let mut random = Random::new(1, 2);
        assert_eq!(
            [random.bits(), random.bits()],
            [6_938_885_953_644_749_562, 2_026_289_535_659_934_096],
            "another generator means other traffic for every seed"
        );
    }

    #[test]
    fn draws_follow_their_weights() {
        let weighted = Weighted::new([1, 0, 3, 4]);
        let mut random = Random::new(7, 0);
        let mut counts = [0u32; 4];
        for _ in 0..80_000 {
            counts[weighted.draw(&mut random) as usize] += 1;
        }
        assert_eq!(counts[1], 0);
        for (count, expected) in counts.into_iter().zip([10_000u32, 0, 30_000, 40_000]) {
            assert!(count.abs_diff(expected) < 600, "{counts:?}");
        }
    }

    #[test]
    fn log_normal_times_have_their_median_and_their_spread() {
        let mut random = Random::new(5, 0);
        let mut times: Vec<i64> = (0..40_000).map(|_| random.log_normal(8_000, 16)).collect();
        times.sort_unstable();
        let quantile = |share: f64| times[(share * 40_000.0) as usize] as f64;
        assert!((quantile(0.5) / 8_000.0 - 1.0).abs() < 0.03);
        // One standard deviation, an octave, to either side.
        assert!((quantile(0.841) / 16_000.0 - 1.0).abs() < 0.05);
        assert!((quantile(0.159) / 4_000.0 - 1.0).abs() < 0.05);
    }

    #[test]
    fn powers_of_two_are_those_of_mathematics() {
        for octaves_256 in -2_000..2_000 {
            let expected = 1e6 * (octaves_256 as f64 / 256.0).exp2();
            let difference = times_exp2(1_000_000, octaves_256) as f64 - expected;
            assert!(difference.abs() < 2.0 + expected * 1e-3, "{octaves_256}");
        }
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut random = Random::new(3, 0);
        for _ in 0..10_000 {
            assert!(random.below(7) < 7);
            assert!((5..9).contains(&random.between(5, 9)));
            assert!((5..9).contains(&random.skewed(5, 9)));
        }
        assert_eq!(random.between(5, 5), 5);
        assert_eq!(random.skewed(5, 5), 5);
    }
}
