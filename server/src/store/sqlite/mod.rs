//! The embedded store: one SQLite database in a folder of its own, which one process holds. All
//! writes go through one thread, which makes those that arrive together durable together; reads
//! run beside it and see what is durable.
//!
//! Destroyed seeds and deleted rows are overwritten in the database file (`secure_delete`). Copies
//! of their old pages stay in the write-ahead log until it is used again from its start; what is
//! left there is sealed text.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use semilla_core::audit;
use semilla_core::id::{CompanyId, TokenId};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use self::pool::{Health, Pool};
use self::rows::Stop;
use self::writer::Job;
use super::{
    Attempt, AuditQuery, Batch, Check, Query, Row, Scope, Store, StoreError, Table, Topic, Verifier,
};

mod copy;
mod pool;
mod query;
mod rows;
mod schema;
mod unit;
mod writer;

#[cfg(test)]
mod tests;

pub use copy::{backup, check, look};

/// Jobs that may wait for the writer; whoever hands in more waits for a place. Four transactions.
const QUEUE: usize = 4 * writer::TOGETHER;
/// Publications a subscriber may be behind before it is told that it lost some.
const TOPICS: usize = 4096;
/// Listings that run at the same time.
const SCANS: usize = 4;

/// What may be chosen about a database.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether opening looks for damage first: `PRAGMA quick_check` over the whole file, and the
    /// last record of each chain against the chain's head. Without it only a tool opens that looks
    /// into a damaged database.
    pub startup_checks: bool,
    /// How long to wait for another program that looks at the file, such as a backup.
    pub busy_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { startup_checks: true, busy_timeout: Duration::from_secs(5) }
    }
}

/// A [`Store`] in a folder or in memory.
pub struct SqliteStore {
    shared: Arc<Shared>,
    topics: broadcast::Sender<Arc<[Topic]>>,
    scans: Semaphore,
}

/// What the store shares with the threads on which it lists and closes.
struct Shared {
    health: Arc<Health>,
    /// Where jobs are handed in; none once the store closes.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// The writer; none once it has ended.
    writer: Mutex<Option<JoinHandle<()>>>,
    /// For reads of single rows, which take microseconds and run where they are asked for: one
    /// for each thread that may ask.
    points: Pool,
    /// For listings.
    listings: Pool,
    /// In tests the writer's own connection, to break it.
    #[cfg(test)]
    writing: pool::Shareable,
}

impl SqliteStore {
    /// Opens the database in the folder `path`, which is made if need be (0700, its files 0600),
    /// and brings its tables up to date.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] where another process holds the folder, the database is newer
    /// than the program, is not one of ours, or cannot be read; [`StoreError::Inconsistent`] where
    /// it is damaged.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let lock = schema::lock(path)?;
        let file = path.join("semilla.db");
        let writing = schema::open_to_write(&file, options)?;
        let threads = std::thread::available_parallelism().map_or(4, usize::from);
        let readers = |count: usize| -> Result<Pool, StoreError> {
            let opened =
                (0..count).map(|_| schema::open_to_read(&file, options).map(pool::shareable));
            Ok(Pool::new(opened.collect::<Result<_, _>>()?))
        };
        let (points, listings) = (readers(threads)?, readers(SCANS)?);
        Ok(Self::start(pool::shareable(writing), points, listings, Some(lock)))
    }

    /// Whether a process holds the folder.
    pub fn is_held(path: &Path) -> bool {
        schema::is_held(path)
    }

    /// A database that lives as long as this value. There is one connection, for which reads and
    /// writes take turns: for tests and simulations.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] where there is no memory.
    pub fn open_in_memory() -> Result<Self, StoreError> {
        let only = pool::shareable(schema::open_in_memory()?);
        let pool = || Pool::new(vec![Arc::clone(&only)]);
        Ok(Self::start(Arc::clone(&only), pool(), pool(), None))
    }

    /// A store that reads the file beside whoever holds it, and writes nothing.
    fn to_be_read(file: &Path) -> Result<Self, StoreError> {
        let readers = |count: usize| -> Result<Pool, StoreError> {
            let opened = (0..count)
                .map(|_| schema::open_to_read(file, Options::default()).map(pool::shareable));
            Ok(Pool::new(opened.collect::<Result<_, _>>()?))
        };
        let (points, listings) = (readers(1)?, readers(1)?);
        Ok(Self {
            shared: Arc::new(Shared {
                health: Arc::new(Health::default()),
                jobs: Mutex::new(None),
                writer: Mutex::new(None),
                points,
                listings,
                #[cfg(test)]
                writing: Arc::new(Mutex::new(None)),
            }),
            topics: broadcast::Sender::new(1),
            scans: Semaphore::new(SCANS),
        })
    }

    fn start(
        writing: pool::Shareable,
        points: Pool,
        listings: Pool,
        lock: Option<std::fs::File>,
    ) -> Self {
        let health = Arc::new(Health::default());
        let (jobs, queue) = mpsc::channel(QUEUE);
        let topics = broadcast::Sender::new(TOPICS);
        let writer = writer::Writer {
            connection: Arc::clone(&writing),
            queue,
            topics: topics.clone(),
            health: Arc::clone(&health),
            lock,
        };
        Self {
            shared: Arc::new(Shared {
                health,
                jobs: Mutex::new(Some(jobs)),
                writer: Mutex::new(Some(std::thread::spawn(|| writer.run()))),
                points,
                listings,
                #[cfg(test)]
                writing,
            }),
            topics,
            scans: Semaphore::new(SCANS),
        }
    }

    /// Why the database can no longer be trusted with anything, where that is so: the system could
    /// not say whether it stored what it was given, or the file is damaged. From then on every
    /// call answers [`StoreError::Unavailable`], and only a restart, which reads what is really
    /// there, helps (security 107).
    pub fn failed(&self) -> Option<&str> {
        self.shared.health.failed()
    }

    /// Hands a job to the writer, which owns it from then on: a caller who stops waiting does not
    /// stop it.
    async fn hand_in<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        self.shared.health.usable()?;
        let jobs = locked(&self.shared.jobs).clone().ok_or_else(pool::closed)?;
        let (answer, answered) = oneshot::channel();
        jobs.send(job(answer)).await.map_err(|_| pool::closed())?;
        drop(jobs);
        answered.await.map_err(|_| pool::closed())?
    }

    /// Reads on a thread of its own.
    async fn listing<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.health.usable()?;
        let _place = self.scans.acquire().await.map_err(|_| pool::closed())?;
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.listings.with(read))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    /// Reads here and now.
    fn point<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Stop>) -> Result<T, StoreError> {
        self.shared.health.usable()?;
        self.shared.points.with(read)
    }
}

impl Shared {
    /// Has the writer finish what was handed in, closes all connections and gives the folder back.
    fn shut(&self) {
        drop(locked(&self.jobs).take());
        self.points.close();
        self.listings.close();
        // Held meanwhile, so that whoever else closes waits as well.
        let mut writer = locked(&self.writer);
        if let Some(thread) = writer.take() {
            // A writer that panicked has nothing more to finish.
            let _ = thread.join();
        }
    }
}

/// The lock on a value that no panic can leave half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn row(
        &self,
        table: &'static Table,
        company: CompanyId,
        id: &str,
    ) -> Result<Option<Row>, StoreError> {
        self.point(|connection| rows::row(connection, table, company, id))
    }

    async fn rows(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let query = query.clone();
        self.listing(move |connection| query::rows(connection, &query)).await
    }

    async fn count(&self, query: &Query) -> Result<u64, StoreError> {
        let query = query.clone();
        self.listing(move |connection| query::count(connection, &query)).await
    }

    async fn lookup(
        &self,
        scope: Scope,
        name: &str,
    ) -> Result<Option<(CompanyId, String)>, StoreError> {
        self.point(|connection| rows::name(connection, scope, name))
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.hand_in(|answer| Job::Commit(batch, answer)).await
    }

    async fn check(&self, check: Check) -> Result<Attempt, StoreError> {
        self.hand_in(|answer| Job::Check(check, answer)).await
    }

    async fn verifier(
        &self,
        company: CompanyId,
        token: TokenId,
    ) -> Result<Option<Verifier>, StoreError> {
        self.point(|connection| rows::verifier(connection, company, token))
    }

    async fn verifiers(
        &self,
        after: Option<(CompanyId, TokenId)>,
        limit: u32,
    ) -> Result<Vec<(CompanyId, TokenId, Verifier)>, StoreError> {
        self.listing(move |connection| rows::verifiers(connection, after, limit)).await
    }

    async fn sealed_under(&self, keys: &[&str]) -> Result<Vec<(String, String)>, StoreError> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        self.listing(move |connection| rows::sealed_under(connection, &keys)).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<audit::Record>, StoreError> {
        let query = query.clone();
        self.listing(move |connection| query::audit(connection, &query)).await
    }

    async fn audit_head(&self, company: CompanyId) -> Result<audit::Head, StoreError> {
        self.point(|connection| rows::head(connection, company))
    }

    async fn audit_chains(&self) -> Result<Vec<CompanyId>, StoreError> {
        self.listing(rows::chains).await
    }

    async fn attempts(
        &self,
        company: CompanyId,
        sequence: u64,
    ) -> Result<Vec<Attempt>, StoreError> {
        self.listing(move |connection| rows::attempts(connection, company, sequence)).await
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<[Topic]>> {
        self.topics.subscribe()
    }

    fn backlog(&self) -> usize {
        let jobs = locked(&self.shared.jobs);
        jobs.as_ref().map_or(0, |jobs| jobs.max_capacity() - jobs.capacity())
    }

    fn cannot_write(&self) -> bool {
        self.shared.health.cannot_write()
    }

    async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // Fails only where closing panicked or the runtime itself is ending.
        let _ = tokio::task::spawn_blocking(move || shared.shut()).await;
    }
}
