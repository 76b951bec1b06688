//! The backfill: the table ends as the history says, whatever happens meanwhile.

mod broken;
mod broken_lines;
mod counts;
mod edits;
mod equal;
mod file_resume;
mod files;
mod gone;
mod hook;
mod leases;
mod lines;
mod odd;
mod progress;
mod quotes;
mod real;
mod resume;
mod steps;
mod summary;
mod unmappable;
