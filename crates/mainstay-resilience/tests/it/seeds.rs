//! Which seeds a random test runs: a fixed range for regressions, one new seed each run, or the one
//! in `MAINSTAY_SEED`.

/// Runs the law for each seed and prints the seed when it fails.
pub(crate) fn for_each_seed(law: impl Fn(u64, fastrand::Rng)) {
    let replay = std::env::var("MAINSTAY_SEED")
        .ok()
        .map(|seed| seed.parse().expect("MAINSTAY_SEED is a number"));
    let seeds = match replay {
        Some(seed) => vec![seed],
        None => (0..300).chain([fastrand::u64(..)]).collect(),
    };
    for seed in seeds {
        let reporter = PrintOnPanic(seed);
        law(seed, fastrand::Rng::with_seed(seed));
        drop(reporter);
    }
}

struct PrintOnPanic(u64);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with MAINSTAY_SEED={}", self.0);
        }
    }
}
