//! What happens within one transaction of the writer: batches, attempts, and the chains they
//! grow. Jobs come one after the other and each sees what those before it wrote, so whatever was
//! true when one was decided is true when it is durable.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use rusqlite::types::ToSql;
use rusqlite::{Connection, params, params_from_iter};
use semilla_core::audit::{Draft, Head};
use semilla_core::id::{CompanyId, TokenId};
use semilla_core::otp::{Method, Parameters};
use semilla_core::verifier::Counters;

use super::rows::{self, Stop, inconsistent, stored};
use crate::store::{
    Attempt, Batch, Check, Row, StoreError, Table, Topic, VerifierChange, Write, attempts_draft,
};

/// Refuses a job as such, and lets a failure of the database through.
fn refusable<T>(done: Result<T, Stop>) -> rusqlite::Result<Result<T, StoreError>> {
    match done {
        Ok(value) => Ok(Ok(value)),
        Err(Stop::Refused(refused)) => Ok(Err(refused)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// The texts of the statements on tables of records, made once for each table.
#[derive(Default)]
pub(super) struct Statements(HashMap<&'static str, Rc<TableStatements>>);

struct TableStatements {
    insert: String,
    update: String,
    put: String,
    delete: String,
    unchanged: String,
}

impl Statements {
    fn of(&mut self, table: &'static Table) -> Rc<TableStatements> {
        let made = self.0.entry(table.name).or_insert_with(|| Rc::new(TableStatements::new(table)));
        Rc::clone(made)
    }
}

impl TableStatements {
    fn new(Table { name, columns }: &Table) -> Self {
        let all = ["company", "id", "version", "body"].iter().chain(columns.iter());
        let names = all.copied().collect::<Vec<_>>().join(", ");
        let places =
            (1..=4 + columns.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
        let insert =
            format!("INSERT INTO {name} ({names}) VALUES ({places}) ON CONFLICT (company, id) DO");
        let set: String =
            columns.iter().zip(5..).map(|(column, n)| format!(", {column} = ?{n}")).collect();
        let key = "company = ?1 AND id = ?2";
        Self {
            update: format!(
                "UPDATE {name} SET version = ?3, body = ?4{set} WHERE {key} AND version = ?3 - 1"
            ),
            // The version goes on rising, so that whoever read the row before it was replaced
            // cannot take the new one for it.
            put: format!(
                "{insert} UPDATE SET version = max(?3, {name}.version + 1), body = ?4{set}"
            ),
            insert: format!("{insert} NOTHING"),
            delete: format!("DELETE FROM {name} WHERE {key} AND version = ?3"),
            unchanged: format!("SELECT 1 FROM {name} WHERE {key} AND version = ?3"),
        }
    }
}

/// The work of one transaction.
pub(super) struct Unit<'a> {
    connection: &'a Connection,
    statements: &'a mut Statements,
    /// The heads of the chains that grew, or are about to.
    heads: HashMap<CompanyId, Head>,
    attempts: BTreeMap<CompanyId, Vec<Attempt>>,
    topics: Vec<Topic>,
}

impl<'a> Unit<'a> {
    pub(super) fn new(connection: &'a Connection, statements: &'a mut Statements) -> Self {
        let (heads, attempts, topics) = (HashMap::new(), BTreeMap::new(), Vec::new());
        Self { connection, statements, heads, attempts, topics }
    }

    /// Writes all of a batch, or, where it is refused, nothing.
    pub(super) fn commit(&mut self, batch: &Batch) -> rusqlite::Result<Result<(), StoreError>> {
        // Writes take effect one by one, so that a name can be freed and reserved again in one
        // batch. Undoing them is cheap, and a single one that is refused wrote nothing.
        let undoable = batch.writes.len() > 1;
        if undoable {
            self.run("SAVEPOINT batch")?;
        }
        let done = batch.writes.iter().try_for_each(|write| self.write(write));
        let done = refusable(done)?;
        if undoable {
            if done.is_err() {
                self.run("ROLLBACK TO batch")?;
            }
            self.run("RELEASE batch")?;
        }
        if done.is_err() {
            return Ok(done);
        }
        for draft in &batch.audit {
            self.append(draft)?;
        }
        self.topics.extend_from_slice(&batch.topics);
        Ok(Ok(()))
    }

    fn run(&self, sql: &str) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute([])
    }

    /// Runs a statement that must hit exactly one row, and conflicts where it hits none.
    fn hit(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), Stop> {
        match self.connection.prepare_cached(sql)?.execute(values)? {
            0 => Err(StoreError::Conflict.into()),
            _ => Ok(()),
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), Stop> {
        match write {
            Write::Insert(table, row) => self.record(table, row, |statements| &statements.insert),
            Write::Update(table, row) => self.record(table, row, |statements| &statements.update),
            Write::Put(table, row) => self.record(table, row, |statements| &statements.put),
            Write::Delete(table, company, id, version) => {
                let sql = self.statements.of(table);
                self.hit(&sql.delete, params![company.to_string(), id, version])
            }
            Write::Unchanged(table, company, id, version) => {
                let sql = self.statements.of(table);
                let mut statement = self.connection.prepare_cached(&sql.unchanged)?;
                let is_there = statement.exists(params![company.to_string(), id, version])?;
                if is_there { Ok(()) } else { Err(StoreError::Conflict.into()) }
            }
            Write::Reserve(scope, name, company, id) => {
                let sql = "INSERT INTO names (scope, name, company, id) VALUES (?1, ?2, ?3, ?4)
                           ON CONFLICT (scope, name) DO NOTHING";
                self.hit(sql, params![scope.name(), name, company.to_string(), id])
            }
            Write::Assign(scope, name, company, id) => {
                let sql = "INSERT INTO names (scope, name, company, id) VALUES (?1, ?2, ?3, ?4)
                           ON CONFLICT (scope, name) DO UPDATE SET company = ?3, id = ?4";
                self.hit(sql, params![scope.name(), name, company.to_string(), id])
            }
            Write::Free(scope, name) => {
                let sql = "DELETE FROM names WHERE scope = ?1 AND name = ?2";
                self.connection.prepare_cached(sql)?.execute(params![scope.name(), name])?;
                Ok(())
            }
            Write::Verifier(company, token, change) => self.verifier(*company, *token, change),
            Write::ForgetAttempts(company, up_to) => {
                let sql = "DELETE FROM attempts WHERE company = ?1 AND sequence <= ?2";
                let up_to = stored("attempts", *up_to)?;
                self.connection
                    .prepare_cached(sql)?
                    .execute(params![company.to_string(), up_to])?;
                Ok(())
            }
        }
    }

    fn record(
        &mut self,
        table: &'static Table,
        row: &Row,
        which: fn(&TableStatements) -> &String,
    ) -> Result<(), Stop> {
        if row.columns.len() != table.columns.len() {
            let (given, declared) = (row.columns.len(), table.columns.len());
            return Err(
                inconsistent(table.name, format!("{given} columns instead of {declared}")).into()
            );
        }
        let statements = self.statements.of(table);
        let company = row.company.to_string();
        let key: [&dyn ToSql; 4] = [&company, &row.id, &row.version, &row.body];
        let columns = row.columns.iter().map(|value| value as &dyn ToSql);
        self.hit(which(&statements), params_from_iter(key.into_iter().chain(columns)))
    }

    fn verifier(
        &self,
        company: CompanyId,
        token: TokenId,
        change: &VerifierChange,
    ) -> Result<(), Stop> {
        let (company, token) = (company.to_string(), token.to_string());
        match change {
            VerifierChange::Open { generation, sealed, method, proved_by, drift } => {
                let sql = "
                    INSERT INTO verifiers
                        (company, token, generation, open, sealed, parameters, last_step, failures, drift)
                    VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6, 0, ?7)
                    ON CONFLICT (company, token) DO UPDATE SET
                        generation = ?3, open = 1, sealed = ?4, parameters = ?5,
                        last_step = max(coalesce(verifiers.last_step, ?6), ?6),
                        failures = 0, waits_until = NULL, drift = ?7";
                let method = self::method(method)?;
                let step = stored("verifiers", *proved_by)?;
                self.hit(
                    sql,
                    params![company, token, generation, sealed.as_str(), method, step, drift],
                )
            }
            VerifierChange::Reopen => {
                let sql = "UPDATE verifiers SET open = 1
                           WHERE company = ?1 AND token = ?2 AND sealed IS NOT NULL";
                self.hit(sql, params![company, token])
            }
            // A token that never had a seed has nothing to close or destroy, and one that no code
            // was tried for has nothing to forgive.
            VerifierChange::Forgive => {
                let sql = "UPDATE verifiers SET failures = 0, waits_until = NULL
                           WHERE company = ?1 AND token = ?2";
                self.connection.prepare_cached(sql)?.execute(params![company, token])?;
                Ok(())
            }
            VerifierChange::Close => {
                let sql = "UPDATE verifiers SET open = 0 WHERE company = ?1 AND token = ?2";
                self.connection.prepare_cached(sql)?.execute(params![company, token])?;
                Ok(())
            }
            VerifierChange::Reseal { from, to } => {
                let sql = "UPDATE verifiers SET sealed = ?4
                           WHERE company = ?1 AND token = ?2 AND sealed = ?3";
                self.hit(sql, params![company, token, from.as_str(), to.as_str()])
            }
            VerifierChange::Spend { up_to } => {
                let sql = "UPDATE verifiers SET last_step = max(coalesce(last_step, ?3), ?3)
                           WHERE company = ?1 AND token = ?2";
                let step = stored("verifiers", *up_to)?;
                self.connection.prepare_cached(sql)?.execute(params![company, token, step])?;
                Ok(())
            }
            VerifierChange::Destroy => {
                let sql = "UPDATE verifiers SET open = 0, sealed = NULL
                           WHERE company = ?1 AND token = ?2";
                self.connection.prepare_cached(sql)?.execute(params![company, token])?;
                Ok(())
            }
        }
    }

    /// Judges an attempt by what the verifier holds now, and stores what came of it.
    pub(super) fn check(&mut self, check: &Check) -> rusqlite::Result<Result<Attempt, StoreError>> {
        refusable(self.judge(check))
    }

    fn judge(&mut self, check: &Check) -> Result<Attempt, Stop> {
        let company = check.company;
        let held = match check.token {
            Some(token) => rows::verifier(self.connection, company, token)?,
            None => None,
        };
        let judged = (check.judge)(held.as_ref());
        if let Some(counters) = &judged.counters {
            let nameless = || inconsistent("verifiers", "counters without a token");
            self.count(company, check.token.ok_or_else(nameless)?, counters)?;
        }
        self.attempts.entry(company).or_default().push(judged.attempt.clone());
        Ok(judged.attempt)
    }

    fn count(&self, company: CompanyId, token: TokenId, counters: &Counters) -> Result<(), Stop> {
        // A step that was consumed stays consumed, and a clock that was followed forward stays
        // there, whatever the rule says (security 6, 25). A token that never had a seed gets a row
        // to count on.
        let sql = "
            INSERT INTO verifiers
                (company, token, generation, open, parameters, last_step, failures, waits_until, drift)
            VALUES (?1, ?2, 0, 0, ?6, ?3, ?4, ?5, ?7)
            ON CONFLICT (company, token) DO UPDATE SET
                last_step = ?3, failures = ?4, waits_until = ?5, drift = ?7
            WHERE (verifiers.last_step IS NULL OR verifiers.last_step <= ?3)
                AND verifiers.drift <= ?7";
        let step = counters.last_step.map(|step| stored("verifiers", step.0)).transpose()?;
        let waits_until = counters.waits_until.map(|moment| moment.milliseconds());
        let (company, named) = (company.to_string(), token.to_string());
        // Means nothing until there is a seed.
        let method = method(&Parameters::APP_MOVIL.into())?;
        let Counters { failures, drift, .. } = *counters;
        let values = params![company, named, step, failures, waits_until, method, drift];
        match self.connection.prepare_cached(sql)?.execute(values)? {
            0 => {
                Err(inconsistent("verifiers", format!("{token}: a step would be given back"))
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// Gives a draft its place in its chain.
    fn append(&mut self, draft: &Draft) -> rusqlite::Result<u64> {
        let head = match self.heads.get(&draft.company) {
            Some(head) => *head,
            None => rows::head(self.connection, draft.company).map_err(failed)?,
        };
        let record = head.append(draft);
        let sql = "INSERT INTO audit (company, sequence, kind, token, body, hash)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.connection.prepare_cached(sql)?.execute(params![
            record.company.to_string(),
            stored("audit", record.sequence).map_err(failed)?,
            draft.kind,
            draft.subject.token.map(|token| token.to_string()),
            record.body,
            record.hash.to_string(),
        ])?;
        self.heads.insert(record.company, Head { sequence: record.sequence, hash: record.hash });
        Ok(record.sequence)
    }

    /// Chains the attempts, one record for each company, and moves the heads. Returns who is told
    /// once all of it is durable, each only once.
    pub(super) fn finish(mut self) -> rusqlite::Result<Vec<Topic>> {
        for (company, attempts) in std::mem::take(&mut self.attempts) {
            let Some(last) = attempts.iter().map(|attempt| attempt.at).max() else { continue };
            let sequence = self.append(&attempts_draft(company, last, &attempts))?;
            self.keep(company, stored("attempts", sequence).map_err(failed)?, &attempts)?;
        }
        let sql = "INSERT INTO chains (company, sequence, hash) VALUES (?1, ?2, ?3)
                   ON CONFLICT (company) DO UPDATE SET sequence = ?2, hash = ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        for (company, head) in &self.heads {
            let sequence = stored("chains", head.sequence).map_err(failed)?;
            statement.execute(params![company.to_string(), sequence, head.hash.to_string()])?;
        }
        let mut seen = std::collections::HashSet::new();
        let grown = self.heads.keys().map(|company| Topic::Audit(*company));
        Ok(self
            .topics
            .into_iter()
            .chain(grown)
            .filter(|topic| seen.insert(topic.clone()))
            .collect())
    }

    fn keep(
        &self,
        company: CompanyId,
        sequence: i64,
        attempts: &[Attempt],
    ) -> rusqlite::Result<()> {
        let sql = "INSERT INTO attempts
                       (company, sequence, position, at, token, client, outcome, failures)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let (mut statement, company) = (self.connection.prepare_cached(sql)?, company.to_string());
        for (position, attempt) in (0_i64..).zip(attempts) {
            statement.execute(params![
                company,
                sequence,
                position,
                attempt.at.milliseconds(),
                attempt.token.map(|token| token.to_string()),
                attempt.client.map(|client| client.to_string()),
                attempt.outcome,
                attempt.failures,
            ])?;
        }
        Ok(())
    }
}

fn method(method: &Method) -> Result<String, StoreError> {
    serde_json::to_string(method).map_err(|error| inconsistent("verifiers", error.to_string()))
}

/// A chain that cannot be continued fails the transaction: no effect without its record
/// (security 90).
fn failed(stop: impl Into<Stop>) -> rusqlite::Error {
    match stop.into() {
        Stop::Failed(error) => error,
        Stop::Refused(refused) => rusqlite::Error::ToSqlConversionFailure(Box::new(refused)),
    }
}
