//! What processes cost, as the kernel counts it.

use std::fs::{read_dir, read_to_string};
use std::time::Duration;

use crate::Failure;

/// The kernel's unit of CPU time for programs, on every architecture that there is.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time of a process so far, of its user's part and of the kernel's.
pub(crate) fn of_process(pid: u32) -> Result<Duration, Failure> {
    Ok(stat(pid)?.own)
}

/// The CPU time of a server that has a process a connection: its own, and that of its children, those
/// that ended too.
pub(crate) fn of_family(pid: u32) -> Result<Duration, Failure> {
    let parent = stat(pid)?;
    let mut sum = parent.own + parent.ended_children;
    for entry in read_dir("/proc")? {
        let pid = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // One may end between two looks.
        if let Some(Ok(child)) = pid.map(stat)
            && child.parent == parent.pid
        {
            sum += child.own;
        }
    }
    Ok(sum)
}

/// The server process of a PostgreSQL on this machine, by the process of one of its connections.
pub(crate) fn postmaster(backend: u32) -> Result<u32, Failure> {
    Ok(stat(backend)?.parent)
}

struct Stat {
    pid: u32,
    parent: u32,
    own: Duration,
    ended_children: Duration,
}

fn stat(pid: u32) -> Result<Stat, Failure> {
    let text = read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name may hold anything, parentheses too.
    let (_, fields) = text.rsplit_once(") ").ok_or("an odd /proc/*/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    // proc(5) counts from the process id, which is 1; what is left begins with the 3rd.
    let number = |at: usize| -> Result<u32, Failure> {
        Ok(fields.get(at - 3).ok_or("a short /proc/*/stat")?.parse()?)
    };
    Ok(Stat {
        pid,
        parent: number(4)?,
        own: TICK * (number(14)? + number(15)?),
        ended_children: TICK * (number(16)? + number(17)?),
    })
}
