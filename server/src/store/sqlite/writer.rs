//! The one thread that writes. It takes all jobs that wait, writes them in one transaction and
//! answers once that is durable, so that a disk that syncs a hundred times a second serves
//! thousands of changes. Whatever goes wrong in a shared transaction is undone, and its jobs are
//! tried again one by one, so that only the one that is to blame fails.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::pool::{Health, Shareable, closed};
use super::unit::{Statements, Unit};
use super::{locked, rows};
use crate::store::{Attempt, Batch, Check, StoreError, Topic};

/// Jobs that share a transaction at most.
pub(super) const TOGETHER: usize = 256;
/// Changed rows after which the log is copied into the database: some thousand pages.
const CHECKPOINT: u64 = 2_000;

/// What is to be written, and who waits for it.
pub(super) enum Job {
    Commit(Batch, oneshot::Sender<Result<(), StoreError>>),
    Check(Check, oneshot::Sender<Result<Attempt, StoreError>>),
}

/// What came of a job within its transaction; of a check the attempt.
type Outcome = Result<Option<Attempt>, StoreError>;

/// Why a transaction as a whole did not happen.
enum Failure {
    /// Before it was to be made durable: it is undone.
    Undone(rusqlite::Error),
    /// While it was made durable.
    Uncommitted(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Undone(error)
    }
}

/// The writer's own things.
pub(super) struct Writer {
    pub(super) connection: Shareable,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) topics: broadcast::Sender<Arc<[Topic]>>,
    pub(super) health: Arc<Health>,
    /// Held for as long as this process may write.
    pub(super) lock: Option<File>,
}

impl Writer {
    /// Writes until nobody can hand in any more and everything handed in is answered.
    pub(super) fn run(mut self) {
        let mut statements = Statements::default();
        let mut checkpointed = 0;
        let mut jobs = Vec::with_capacity(TOGETHER);
        while self.queue.blocking_recv_many(&mut jobs, TOGETHER) > 0 {
            let held = Arc::clone(&self.connection);
            let held = locked(&held);
            // Whatever came meanwhile goes with it.
            while jobs.len() < TOGETHER
                && let Ok(job) = self.queue.try_recv()
            {
                jobs.push(job);
            }
            let Some(connection) = held.as_ref() else { return };
            self.write(connection, &mut statements, std::mem::take(&mut jobs));
            let changes = connection.total_changes();
            if changes - checkpointed >= CHECKPOINT {
                checkpointed = changes;
                self.checkpoint(connection, "PASSIVE");
            }
        }
        if let Some(connection) = locked(&self.connection).take() {
            self.checkpoint(&connection, "TRUNCATE");
        }
        drop(self.lock.take());
    }

    /// Copies what is in the log into the database file. The log stays the truth until that is
    /// durable, so nothing is lost where it goes wrong; but a disk that fails here fails.
    fn checkpoint(&self, connection: &Connection, how: &str) {
        let done = connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()));
        if let Err(error) = done {
            self.health.note(&error, true);
        }
    }

    fn write(&self, connection: &Connection, statements: &mut Statements, jobs: Vec<Job>) {
        if let Err(failed) = self.health.usable() {
            return refuse(jobs, &failed.to_string());
        }
        let before = connection.total_changes();
        match together(connection, statements, &jobs) {
            Ok((outcomes, topics)) => {
                // A transaction in which everything was refused has tried nothing.
                if connection.total_changes() > before {
                    self.health.wrote(true);
                }
                // Told before the answers, so that whoever has an answer has been told.
                if !topics.is_empty() {
                    // Fails only where nobody listens.
                    let _ = self.topics.send(topics.into());
                }
                for (job, outcome) in jobs.into_iter().zip(outcomes) {
                    answer(job, outcome);
                }
            }
            Err(failure) => {
                undo(connection);
                let (error, durably) = match failure {
                    Failure::Undone(error) => (error, false),
                    Failure::Uncommitted(error) => (error, true),
                };
                self.health.note(&error, durably);
                if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
                    self.health.wrote(false);
                }
                if durably || jobs.len() == 1 || self.health.failed().is_some() {
                    return fail(jobs, &error);
                }
                for job in jobs {
                    self.write(connection, statements, vec![job]);
                }
            }
        }
    }
}

/// Writes jobs in one transaction: all that are not refused, or none.
fn together(
    connection: &Connection,
    statements: &mut Statements,
    jobs: &[Job],
) -> Result<(Vec<Outcome>, Vec<Topic>), Failure> {
    // IMMEDIATE: what is read in it is what is changed in it (F16).
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let mut unit = Unit::new(connection, statements);
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        outcomes.push(match job {
            Job::Commit(batch, _) => unit.commit(batch)?.map(|()| None),
            // A rule that panics fails its own attempt and nobody else's: it is asked before
            // anything of the attempt is written.
            Job::Check(check, _) => match catch_unwind(AssertUnwindSafe(|| unit.check(check))) {
                Ok(checked) => checked?.map(Some),
                Err(_) => Err(rows::inconsistent("attempts", "the rule panicked")),
            },
        });
    }
    let topics = unit.finish()?;
    let commit = connection.prepare_cached("COMMIT")?.execute([]);
    commit.map_err(Failure::Uncommitted)?;
    Ok((outcomes, topics))
}

/// Undoes what is left of a transaction; SQLite itself undoes those that met a full disk.
fn undo(connection: &Connection) {
    if !connection.is_autocommit() {
        // Where even this fails the next BEGIN does as well, and says so.
        let _ = connection.execute_batch("ROLLBACK");
    }
}

fn answer(job: Job, outcome: Outcome) {
    // Sending fails where nobody waits any more.
    match job {
        Job::Commit(_, waiting) => drop(waiting.send(outcome.map(drop))),
        Job::Check(_, waiting) => {
            drop(waiting.send(outcome.and_then(|attempt| attempt.ok_or_else(closed))));
        }
    }
}

fn refuse(jobs: Vec<Job>, why: &str) {
    for job in jobs {
        answer(job, Err(StoreError::Unavailable(why.to_owned())));
    }
}

/// Answers jobs whose transaction did not happen. One that broke a rule of the tables was wrong
/// itself; everything else is the database's.
fn fail(jobs: Vec<Job>, error: &rusqlite::Error) {
    if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
        return refuse(jobs, &error.to_string());
    }
    for job in jobs {
        answer(job, Err(rows::inconsistent("database", error.to_string())));
    }
}
