//! What the shell is told. Scripts branch on these numbers, so they are decided here, once; the help
//! and the README repeat them and tests compare.

use mainstay::Kind;
use std::process::ExitCode;

/// How a command ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and everything is in order.
    Done,
    /// Not done, or not up to date.
    NotDone,
    /// Somebody has to mend something before it is worth trying again.
    Mend,
    /// Declined at the question, or interrupted.
    Declined,
}

impl Exit {
    /// Every way to end, in the order of the documentation.
    pub(crate) const ALL: [Self; 4] = [Self::Done, Self::NotDone, Self::Mend, Self::Declined];

    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotDone => 1,
            // clap's own number for wrong arguments.
            Self::Mend => 2,
            // What a shell reports after Ctrl-C; Prisma answers a declined question with it too.
            Self::Declined => 130,
        }
    }

    /// What the number means, as the help and the README say it.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; the database answers, its schema is up to date",
            Self::NotDone => {
                "not done: the database or a file said no; `status`: migrations are pending"
            }
            Self::Mend => {
                "to be mended first: arguments, configuration, or a migration that failed or was \
                 changed after it was applied"
            }
            Self::Declined => "declined at the question, or interrupted",
        }
    }

    /// The table for `--help`.
    pub(crate) fn table() -> String {
        let rows = Self::ALL.map(|exit| format!("  {:>3}  {}", exit.code(), exit.meaning()));
        format!("Exit codes:\n{}", rows.join("\n"))
    }

    /// How a command ends that met such an error.
    pub(crate) const fn after(kind: Kind) -> Self {
        match kind {
            Kind::Config | Kind::Migration => Self::Mend,
            _ => Self::NotDone,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_end_has_a_number_of_its_own() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 130]);
    }

    #[test]
    fn the_readme_and_the_help_say_what_the_program_does() {
        let readme = include_str!("../README.md");
        let help = Exit::table();
        for exit in Exit::ALL {
            let row = format!("| {} | {} |", exit.code(), exit.meaning());
            assert!(readme.contains(&row), "README.md lacks: {row}");
            assert!(help.contains(exit.meaning()), "{help}");
        }
    }

    #[test]
    fn what_a_person_has_to_mend_is_told_from_what_may_pass() {
        for kind in Kind::ALL {
            let expected = match kind {
                Kind::Config | Kind::Migration => Exit::Mend,
                _ => Exit::NotDone,
            };
            assert_eq!(Exit::after(kind), expected, "{kind}");
        }
    }
}
