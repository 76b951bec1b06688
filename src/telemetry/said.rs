//! Errors as users and logs are told them.

use std::error::Error;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// An error with its causes, each said once, and what a database said in its own words: the driver's text
/// of such an error ends in a line of PostgreSQL's source code (`… at line 4048`).
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        match of_a_database(cause) {
            // Others say it within their own text.
            Some(database) if text.contains(&said) => text = text.replace(&said, &words(database)),
            Some(database) => add(&mut text, &words(database)),
            None => add(&mut text, &said),
        }
        next = cause.source();
    }
    text
}

fn add(text: &mut String, said: &str) {
    if text.is_empty() {
        text.push_str(said);
    } else if !text.contains(said) {
        text.push_str(": ");
        text.push_str(said);
    }
}

/// The database's error, as whichever of the driver's types it comes.
fn of_a_database<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e dyn DatabaseError> {
    if let Some(sqlx::Error::Database(database)) = error.downcast_ref::<sqlx::Error>() {
        return Some(&**database);
    }
    error
        .downcast_ref::<Box<dyn DatabaseError>>()
        .map(|database| &**database)
}

/// Its message, with the detail and the hint where PostgreSQL gives them.
fn words(database: &dyn DatabaseError) -> String {
    let postgres = database.try_downcast_ref::<PgDatabaseError>();
    let more = postgres.map(|error| [error.detail(), error.hint()]);
    let mut text = database.message().to_owned();
    for more in more.into_iter().flatten().flatten() {
        text.push_str("; ");
        text.push_str(more.trim_end_matches('.'));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::fmt;

    use sqlx::error::ErrorKind;

    use super::*;

    /// As the driver's: its text says more than its message.
    #[derive(Debug)]
    struct Refused;

    impl fmt::Display for Refused {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("permission denied at line 2702")
        }
    }

    impl Error for Refused {}

    impl DatabaseError for Refused {
        fn message(&self) -> &'static str {
            "permission denied"
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            None
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    #[derive(Debug, thiserror::Error)]
    enum Above {
        #[error("it failed")]
        Silent(#[source] sqlx::Error),
        #[error("it failed of `{0}`")]
        Saying(#[source] sqlx::Error),
        #[error(transparent)]
        Through(Box<Above>),
    }

    fn refused() -> sqlx::Error {
        sqlx::Error::Database(Box::new(Refused))
    }

    #[test]
    fn a_database_is_told_in_its_own_words_once() {
        for (error, said) in [
            (Above::Silent(refused()), "it failed: permission denied"),
            (Above::Saying(refused()), "it failed of `permission denied`"),
            (
                Above::Through(Box::new(Above::Silent(refused()))),
                "it failed: permission denied",
            ),
            (
                Above::Silent(sqlx::Error::PoolClosed),
                "it failed: attempted to acquire a connection on a closed pool",
            ),
        ] {
            assert_eq!(chain(&error), said);
        }
        assert_eq!(chain(&refused()), "permission denied");
    }
}
