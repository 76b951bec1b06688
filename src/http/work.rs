//! What each endpoint may ask of the databases: the greatest number of statements of one request, however
//! much it asks for, transactions' beginnings and ends apart. The tests hold each endpoint to it;
//! `recents_db_statements_total` counts what is sent.

/// The most statements of a request to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// The method.
    pub method: &'static str,
    /// The path's pattern.
    pub path: &'static str,
    /// How many statements, with a cache that has nothing, without a streaming replica, lists being read
    /// from the table. Tries after a conflict come besides, and lists that are read once more, each by itself,
    /// because a read of several failed or took too long, which one of them may be the reason of.
    pub statements: u32,
    /// The same where lists are read from the history (`read_path` `history` or `shadow`), for an endpoint
    /// that costs more then. What connecting asks once comes besides, and what is compared behind an answer.
    pub by_history: Option<u32>,
}

const fn work(method: &'static str, path: &'static str, statements: u32) -> Work {
    Work {
        method,
        path,
        statements,
        by_history: None,
    }
}

const fn list_work(
    method: &'static str,
    path: &'static str,
    statements: u32,
    by_history: u32,
) -> Work {
    Work {
        by_history: Some(by_history),
        ..work(method, path, statements)
    }
}

/// A statement of details, and before it one that has SQLite read its schema.
const DETAILS: u32 = 2;
/// A read, once more where this process meets a dismissal for the first time; and, where items have no
/// details, two further reads, with a statement of details for each of the three and one more for the last,
/// which has more than a thousand ids.
const LIST: u32 = 2 + 2 + DETAILS * (3 + 1);
/// The same reads for all of its lists together; details of 101, 100 and 1,000 items of a hundred lists,
/// by the thousand.
const BATCH: u32 = 2 + 2 + DETAILS * (11 + 10 + 101);
/// The history and what was dismissed of it, for each of three reads.
const LIST_BY_HISTORY: u32 = 3 * 2 + DETAILS * (3 + 1);
/// A SQLite history is asked for each workspace.
const BATCH_BY_HISTORY: u32 = 3 * (100 + 1) + DETAILS * (11 + 10 + 101);
/// A write in a transaction, SQLite's count of changes around it, and the position behind it.
const WRITE: u32 = 2 + 1 + 2 + 1;
/// A flush notes runs and keys of the rows that it changes.
const RUNS: u32 = WRITE + 2;
/// What is dismissed is swept, in a transaction of its own.
const DISMISS: u32 = WRITE + 2 + 2 + 2;
/// What only the history has, dated later than now, is read, and hidden.
const DISMISS_BY_HISTORY: u32 = DISMISS + 2;
/// A former request of the key, what nobody works at any more set aside, the job; three times, where others
/// are in the way and gone when they are looked for; what it answers.
const RESYNC: u32 = 3 * 3 + 2 + 1;
/// The change, what it answers, and a job that is in the way and gone when it is looked for; three times.
const TRANSITION: u32 = 3 * 3;
/// The job, and the lines that are kept of a plan by the thousand, until there is none.
const PLAN: u32 = 1 + 100 + 1;

const LISTS: &str = "/v1/workspaces/{workspace}/recent-workflows";
const USER_LISTS: &str = "/v1/workspaces/{workspace}/users/{uid}/recent-workflows";

/// Every endpoint. Those about the service itself ask nothing.
pub const WORK: &[Work] = &[
    work("POST", "/v1/runs", RUNS),
    list_work("GET", LISTS, LIST, LIST_BY_HISTORY),
    list_work("GET", USER_LISTS, LIST, LIST_BY_HISTORY),
    list_work(
        "POST",
        "/v1/recent-workflows/batch",
        BATCH,
        BATCH_BY_HISTORY,
    ),
    list_work("DELETE", LISTS, DISMISS, DISMISS_BY_HISTORY),
    list_work("DELETE", USER_LISTS, DISMISS, DISMISS_BY_HISTORY),
    list_work(
        "DELETE",
        "/v1/workspaces/{workspace}/recent-workflows/{published_run}",
        DISMISS,
        DISMISS_BY_HISTORY,
    ),
    list_work(
        "DELETE",
        "/v1/workspaces/{workspace}/users/{uid}/recent-workflows/{published_run}",
        DISMISS,
        DISMISS_BY_HISTORY,
    ),
    work("DELETE", "/v1/published-runs/{published_run}", DISMISS),
    // SQLite's others hear by its count of changes, which counts one more.
    work("POST", "/admin/v1/cache/invalidate", 3),
    work("GET", "/admin/v1/settings", 0),
    // Both settings in a transaction, then all of them read.
    work("PATCH", "/admin/v1/settings", 6),
    work("POST", "/admin/v1/resyncs", RESYNC),
    work("GET", "/admin/v1/jobs", 1),
    work("GET", "/admin/v1/jobs/{id}", 1),
    work("GET", "/admin/v1/jobs/{id}/plan", PLAN),
    work("POST", "/admin/v1/jobs/{id}/cancel", TRANSITION),
    work("POST", "/admin/v1/jobs/{id}/pause", TRANSITION),
    work("POST", "/admin/v1/jobs/{id}/resume", TRANSITION),
    work("GET", "/livez", 0),
    work("GET", "/readyz", 0),
    work("GET", "/metrics", 0),
    work("GET", "/openapi.json", 0),
];
