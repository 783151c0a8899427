//! What errors of diesel mean.
//!
//! diesel keeps no SQLSTATE, only a kind for the most frequent ones. A deadlock (40P01) has none, so it is
//! permanent here: matching on the words of a message would be a guess.

use super::Classify;
use diesel::ConnectionError;
use diesel::result::{DatabaseErrorKind, Error};
use mainstay_core::{Class, Evidence};

impl Classify for Error {
    fn class(&self) -> Class {
        meaning(self).0
    }

    fn evidence(&self) -> Evidence {
        meaning(self).1
    }
}

impl Classify for ConnectionError {
    fn class(&self) -> Class {
        connecting(self).0
    }

    fn evidence(&self) -> Evidence {
        connecting(self).1
    }
}

fn meaning(error: &Error) -> (Class, Evidence) {
    match error {
        Error::DatabaseError(kind, _) => match kind {
            DatabaseErrorKind::SerializationFailure => (Class::RolledBack, Evidence::Answered),
            // Which moment it was is not said.
            DatabaseErrorKind::ClosedConnection => (Class::OutcomeUnknown, Evidence::Silent),
            DatabaseErrorKind::UnableToSendCommand => (Class::Permanent, Evidence::Neither),
            _ => (Class::Permanent, Evidence::Answered),
        },
        // What went wrong first decides; what became of it is known even less than before.
        Error::RollbackErrorOnCommit { commit_error, .. } => match meaning(commit_error) {
            (Class::RolledBack, evidence) => (Class::OutcomeUnknown, evidence),
            meant => meant,
        },
        // The transaction manager has given the connection up after a commit that it could not judge.
        Error::BrokenTransactionManager => (Class::OutcomeUnknown, Evidence::Silent),
        Error::NotFound | Error::DeserializationError(_) => (Class::Permanent, Evidence::Answered),
        _ => (Class::Permanent, Evidence::Neither),
    }
}

fn connecting(error: &ConnectionError) -> (Class, Evidence) {
    match error {
        // Refused credentials look like this too. Few attempts are made, and paced.
        ConnectionError::BadConnection(_) => (Class::NotSent, Evidence::Silent),
        ConnectionError::CouldntSetupConfiguration(error) => match meaning(error) {
            // Nothing of the caller's was sent.
            (Class::OutcomeUnknown | Class::RolledBack, evidence) => (Class::NotSent, evidence),
            meant => meant,
        },
        _ => (Class::Permanent, Evidence::Neither),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RetryPolicy, retry};

    fn refused(kind: DatabaseErrorKind) -> Error {
        Error::DatabaseError(kind, Box::new("no".to_owned()))
    }

    #[test]
    fn each_error_means_what_may_be_done_next() {
        use Class::{NotSent, OutcomeUnknown, Permanent, RolledBack};
        use DatabaseErrorKind as K;
        use Evidence::{Answered, Neither, Silent};
        for (error, class, evidence) in [
            (refused(K::SerializationFailure), RolledBack, Answered),
            (refused(K::UniqueViolation), Permanent, Answered),
            (refused(K::ReadOnlyTransaction), Permanent, Answered),
            (refused(K::ClosedConnection), OutcomeUnknown, Silent),
            (refused(K::UnableToSendCommand), Permanent, Neither),
            (Error::NotFound, Permanent, Answered),
            (Error::BrokenTransactionManager, OutcomeUnknown, Silent),
            (
                Error::RollbackErrorOnCommit {
                    rollback_error: Box::new(refused(K::ClosedConnection)),
                    commit_error: Box::new(refused(K::SerializationFailure)),
                },
                OutcomeUnknown,
                Answered,
            ),
            (Error::RollbackTransaction, Permanent, Neither),
        ] {
            assert_eq!(
                (error.class(), error.evidence()),
                (class, evidence),
                "{error:?}"
            );
        }
        let away = ConnectionError::BadConnection("refused".into());
        assert_eq!((away.class(), away.evidence()), (NotSent, Silent));
        let lost = ConnectionError::CouldntSetupConfiguration(refused(K::ClosedConnection));
        assert_eq!((lost.class(), lost.evidence()), (NotSent, Silent));
        let wrong = ConnectionError::InvalidConnectionUrl("x".into());
        assert_eq!((wrong.class(), wrong.evidence()), (Permanent, Neither));
    }

    #[tokio::test(start_paused = true)]
    async fn diesel_errors_are_repeated_by_the_same_policy() {
        let policy = RetryPolicy::default();
        let attempts = retry(&policy, async |attempt| match attempt {
            1 => Err(refused(DatabaseErrorKind::SerializationFailure)),
            n => Ok(n),
        });
        assert_eq!(attempts.await.unwrap(), 2);
    }
}
