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
    /// How many statements, with a cache that has nothing, without a streaming replica.
    pub statements: u32,
}

const fn work(method: &'static str, path: &'static str, statements: u32) -> Work {
    Work {
        method,
        path,
        statements,
    }
}

/// A read, once more where this process meets a dismissal for the first time; and, where items have no
/// details, two further reads, with a statement of details for each of the three and one more for the last,
/// which has more than a thousand ids.
const LIST: u32 = 2 + 2 + 3 + 1;
/// The same reads for all of its lists together; details of 101, 100 and 1,000 items of a hundred lists,
/// by the thousand.
const BATCH: u32 = 2 + 2 + 11 + 10 + 101;
/// A write in a transaction, SQLite's count of changes around it, and the position behind it.
const WRITE: u32 = 2 + 1 + 2 + 1;
/// A flush notes runs and keys of the rows that it changes.
const RUNS: u32 = WRITE + 2;
/// What is dismissed is swept, in a transaction of its own.
const DISMISS: u32 = WRITE + 2 + 2 + 2;

const LISTS: &str = "/v1/workspaces/{workspace}/recent-workflows";
const USER_LISTS: &str = "/v1/workspaces/{workspace}/users/{uid}/recent-workflows";

/// Every endpoint. Those about the service itself ask nothing.
pub const WORK: &[Work] = &[
    work("POST", "/v1/runs", RUNS),
    work("GET", LISTS, LIST),
    work("GET", USER_LISTS, LIST),
    work("POST", "/v1/recent-workflows/batch", BATCH),
    work("DELETE", LISTS, DISMISS),
    work("DELETE", USER_LISTS, DISMISS),
    work(
        "DELETE",
        "/v1/workspaces/{workspace}/recent-workflows/{published_run}",
        DISMISS,
    ),
    work(
        "DELETE",
        "/v1/workspaces/{workspace}/users/{uid}/recent-workflows/{published_run}",
        DISMISS,
    ),
    work("DELETE", "/v1/published-runs/{published_run}", DISMISS),
    // SQLite's others hear by its count of changes, which counts one more.
    work("POST", "/admin/v1/cache/invalidate", 3),
    work("GET", "/admin/v1/settings", 0),
    // Both settings in a transaction, then all of them read.
    work("PATCH", "/admin/v1/settings", 6),
    // An overlapping job, a former request of the key, the job, what it answers.
    work("POST", "/admin/v1/resyncs", 10),
    work("GET", "/admin/v1/jobs", 2),
    work("GET", "/admin/v1/jobs/{id}", 2),
    // By parts of the plan, as it is read; each is one statement.
    work("GET", "/admin/v1/jobs/{id}/plan", 3),
    work("POST", "/admin/v1/jobs/{id}/cancel", 6),
    work("POST", "/admin/v1/jobs/{id}/pause", 6),
    work("POST", "/admin/v1/jobs/{id}/resume", 6),
    work("GET", "/livez", 0),
    work("GET", "/readyz", 0),
    work("GET", "/metrics", 0),
    work("GET", "/openapi.json", 0),
];
