//! How long a test runs and by which seed: both are printed, so that a run that failed can be made
//! again, and both can be set. `cargo xtask proof` sets the length.

#![expect(
    clippy::print_stdout,
    reason = "the seed of a run that fails must be known"
)]

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|error| panic!("{name}={value}: {error}")),
    )
}

/// The length that the environment variable names, else `short`.
pub(crate) fn length(name: &str, short: u64) -> u64 {
    let length = setting(name).unwrap_or(short);
    println!("{name}={length}");
    length
}

/// The seed of this run: `MAINSTAY_SEED`, else a random one.
pub(crate) fn seed() -> u64 {
    let seed = setting("MAINSTAY_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("MAINSTAY_SEED={seed}");
    seed
}
