//! One unit of work: what it has read and what it changes. A record that several rules touch is
//! read once and written once, at the version it was read at.

use std::collections::BTreeMap;

use semilla_core::audit::{Actor, Draft};
use semilla_core::id::CompanyId;
use semilla_core::time::Timestamp;

use super::{Failure, Plan};
use crate::app::App;
use crate::store::{Batch, Record, Records, Row, StoreError, Topic, Versioned, Write};

struct Held {
    table: &'static crate::store::Table,
    row: Row,
    /// The version it was read at; none where the unit makes it.
    read_at: Option<i64>,
    changed: bool,
}

/// What one request reads and changes.
pub struct Unit<'a> {
    /// What everything works with.
    pub app: &'a App,
    /// The one moment at which all of it happens.
    pub now: Timestamp,
    /// Writes without a record: names, the verifier, moves.
    pub batch: Batch,
    held: BTreeMap<(&'static str, CompanyId, String), Held>,
}

impl<'a> Unit<'a> {
    /// A unit that has read and changed nothing.
    pub fn new(app: &'a App) -> Self {
        Self { app, now: app.now(), batch: Batch::default(), held: BTreeMap::new() }
    }

    /// A record, as this unit has left it, or as it is stored.
    pub async fn get<R: Record>(
        &mut self,
        company: CompanyId,
        id: &str,
    ) -> Result<Option<Versioned<R>>, Failure> {
        let key = (R::TABLE.name, company, id.to_owned());
        if !self.held.contains_key(&key) {
            let Some(row) = self.app.store.row(R::TABLE, company, id).await? else {
                return Ok(None);
            };
            let read_at = Some(row.version);
            self.held.insert(key.clone(), Held { table: R::TABLE, row, read_at, changed: false });
        }
        let held = &self.held[&key];
        Ok(Some(Versioned {
            record: read_body(R::TABLE.name, &held.row)?,
            version: held.row.version,
        }))
    }

    /// As [`Unit::get`], for a record that must exist.
    pub async fn must<R: Record>(
        &mut self,
        company: CompanyId,
        id: &str,
    ) -> Result<Versioned<R>, Failure> {
        self.get(company, id).await?.ok_or_else(|| {
            StoreError::Inconsistent { table: R::TABLE.name, what: format!("{id} is missing") }
                .into()
        })
    }

    /// The records a query chooses, as this unit has left them.
    pub async fn find<R: Record>(
        &mut self,
        query: &crate::store::Query,
    ) -> Result<Vec<Versioned<R>>, Failure> {
        let mut found = Vec::new();
        for Versioned { record, .. } in self.app.store.find::<R>(query).await? {
            // Through `get`, so that what is changed twice is changed once.
            found.extend(self.get::<R>(record.company(), &record.id()).await?);
        }
        Ok(found)
    }

    /// Takes over a record: a new one, or one that was read through this unit and changed.
    pub fn save<R: Record>(&mut self, record: &R) {
        let key = (R::TABLE.name, record.company(), record.id());
        let read_at = self.held.get(&key).and_then(|held| held.read_at);
        let row = crate::store::row_of(record, read_at.unwrap_or(1));
        self.held.insert(key, Held { table: R::TABLE, row, read_at, changed: true });
    }

    /// The version a record will have once this unit is durable.
    pub fn version_after<R: Record>(&self, record: &R) -> i64 {
        match self
            .held
            .get(&(R::TABLE.name, record.company(), record.id()))
            .and_then(|held| held.read_at)
        {
            Some(read_at) => read_at + 1,
            None => 1,
        }
    }

    /// Adds an audit record.
    pub fn record(&mut self, draft: Draft) {
        self.batch.audit.push(draft);
    }

    /// A new audit record of this moment.
    pub fn draft(&self, company: CompanyId, kind: &str, actor: Actor) -> Draft {
        Draft::new(company, self.now, kind, actor)
    }

    /// Wakes whoever waits for `topic`.
    pub fn wake(&mut self, topic: Topic) {
        self.batch.topics.push(topic);
    }

    /// The changes, to be committed.
    pub fn into_batch(mut self) -> Batch {
        let mut writes = Vec::new();
        for held in self.held.into_values() {
            match held.read_at {
                // What the unit decided by, but did not change, must not have changed either.
                Some(version) if !held.changed => {
                    writes.push(Write::Unchanged(
                        held.table,
                        held.row.company,
                        held.row.id,
                        version,
                    ));
                }
                Some(version) => {
                    writes
                        .push(Write::Update(held.table, Row { version: version + 1, ..held.row }));
                }
                None => writes.push(Write::Insert(held.table, Row { version: 1, ..held.row })),
            }
        }
        writes.append(&mut self.batch.writes);
        self.batch.writes = writes;
        self.batch
    }

    /// The plan that makes the changes and answers `answer`.
    pub fn plan<T>(self, answer: T) -> Plan<T> {
        Plan { batch: self.into_batch(), answer }
    }

    /// The failure that makes the changes and refuses.
    pub fn refuse(self, problem: semilla_core::problem::Problem) -> Failure {
        Failure::Recorded(Box::new(problem), Box::new(self.into_batch()))
    }

    /// Forgets a record that is written in another way: moved or deleted.
    pub fn forget<R: Record>(&mut self, record: &R) {
        self.held.remove(&(R::TABLE.name, record.company(), record.id()));
    }
}

fn read_body<R: Record>(table: &'static str, row: &Row) -> Result<R, StoreError> {
    serde_json::from_str(&row.body)
        .map_err(|error| StoreError::Inconsistent { table, what: format!("{}: {error}", row.id) })
}
