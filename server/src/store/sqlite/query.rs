//! Queries as SQL. Only names that a [`crate::store::Table`] declares get into the text; everything
//! else is a parameter. Pages continue behind a row rather than after a number of rows, so that the
//! thousandth page costs what the first one does and nothing is shown twice.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};
use semilla_core::audit::Record;
use semilla_core::id::CompanyId;

use super::rows::{Stop, counted, inconsistent, parsed, record, stored, unread};
use crate::store::{AuditQuery, Query, Row, StoreError, Value};

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The conditions of a statement, and the values of its parameters in their order.
#[derive(Clone, Debug, Default)]
struct Conditions {
    clauses: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    fn add(&mut self, clause: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.clauses.push(clause.into());
        self.values.extend(values);
    }

    fn with(&self, clause: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Self {
        let mut more = self.clone();
        more.add(clause, values);
        more
    }

    fn text(&self) -> String {
        if self.clauses.is_empty() { "TRUE".to_owned() } else { self.clauses.join(" AND ") }
    }
}

/// `column` = one of `values`.
fn any_of(column: &str, values: &[Value]) -> (String, Vec<Value>) {
    let known: Vec<Value> = values.iter().filter(|value| **value != Value::Null).cloned().collect();
    let or_null =
        if known.len() < values.len() { format!(" OR {column} IS NULL") } else { String::new() };
    let equal = match known.len() {
        0 => "FALSE".to_owned(),
        1 => format!("{column} = ?"),
        more => format!("{column} IN ({})", vec!["?"; more].join(", ")),
    };
    (format!("({equal}{or_null})"), known)
}

/// Everything that a query asks for, its `after` and `limit` aside.
fn conditions(query: &Query) -> Result<Conditions, StoreError> {
    let declared = |column: &'static str| {
        let is_declared = query.table.columns.contains(&column);
        let unknown = || inconsistent(query.table.name, format!("there is no column `{column}`"));
        is_declared.then_some(column).ok_or_else(unknown)
    };
    query.order.map(declared).transpose()?;
    let mut conditions = Conditions::default();
    if let Some(company) = query.company {
        conditions.add("company = ?", [company.to_string().into()]);
    }
    for (column, values) in &query.any_of {
        let (clause, values) = any_of(declared(column)?, values);
        conditions.add(clause, values);
    }
    if let Some((columns, text)) = &query.search {
        // Not LIKE: there `%` and `_` mean something, and what upper case means depends on the
        // database.
        let clauses =
            columns.iter().map(|column| Ok(format!("instr({}, ?) > 0", declared(column)?)));
        let clauses = clauses.collect::<Result<Vec<_>, StoreError>>()?;
        let values = vec![Value::from(text.as_str()); clauses.len()];
        // No column contains it where none is searched.
        let any = if clauses.is_empty() { "FALSE".to_owned() } else { clauses.join(" OR ") };
        conditions.add(format!("({any})"), values);
    }
    if let Some((column, most)) = query.at_most {
        conditions.add(format!("{} <= ?", declared(column)?), [most.into()]);
    }
    Ok(conditions)
}

/// The parts in which the rows behind `after` come, one after the other: each is one range of an
/// index, which `OR` between a value and nothing would not be.
fn parts(query: &Query) -> Result<Vec<Conditions>, StoreError> {
    let all = conditions(query)?;
    let Some((value, id)) = &query.after else { return Ok(vec![all]) };
    let beyond = if query.descending { "<" } else { ">" };
    let id = || Value::from(id.as_str());
    let Some(column) = query.order else {
        return Ok(vec![all.with(format!("id {beyond} ?"), [id()])]);
    };
    let nulls = format!("{column} IS NULL");
    Ok(match (value, query.descending) {
        (Value::Null, false) => vec![
            all.with(format!("{nulls} AND id > ?"), [id()]),
            all.with(format!("{column} IS NOT NULL"), []),
        ],
        (Value::Null, true) => vec![all.with(format!("{nulls} AND id < ?"), [id()])],
        (value, false) => vec![all.with(format!("({column}, id) > (?, ?)"), [value.clone(), id()])],
        (value, true) => vec![
            all.with(format!("({column}, id) < (?, ?)"), [value.clone(), id()]),
            all.with(nulls, []),
        ],
    })
}

fn select(query: &Query, part: &Conditions) -> String {
    let direction = if query.descending { "DESC" } else { "ASC" };
    let order = query.order.map(|column| format!("{column} {direction}, ")).unwrap_or_default();
    let (table, conditions) = (query.table.name, part.text());
    format!(
        "SELECT company, id, version, body FROM {table} WHERE {conditions} ORDER BY {order}id {direction} LIMIT ?"
    )
}

/// The rows that a query chooses.
pub(super) fn rows(connection: &Connection, query: &Query) -> Result<Vec<Row>, Stop> {
    let table = query.table.name;
    let mut found = Vec::new();
    for part in parts(query)? {
        let left = i64::from(query.limit) - i64::try_from(found.len()).unwrap_or(i64::MAX);
        if left <= 0 {
            break;
        }
        let mut statement =
            connection.prepare_cached(&select(query, &part)).map_err(unread(table))?;
        let values = part.values.iter().cloned().chain([left.into()]);
        let mut rows = statement.query(params_from_iter(values)).map_err(unread(table))?;
        while let Some(row) = rows.next().map_err(unread(table))? {
            let (company, id, version, body): (String, String, i64, String) =
                row.try_into().map_err(unread(table))?;
            let company = parsed(table, &company)?;
            found.push(Row { company, id, version, body, columns: Vec::new() });
        }
    }
    Ok(found)
}

/// How many rows a query would choose, its `after` and `limit` aside.
pub(super) fn count(connection: &Connection, query: &Query) -> Result<u64, Stop> {
    let table = query.table.name;
    let conditions = conditions(query)?;
    let sql = format!("SELECT count(*) FROM {table} WHERE {}", conditions.text());
    let number: i64 = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.query_row(params_from_iter(&conditions.values), |row| row.get(0))
        })
        .map_err(unread(table))?;
    Ok(counted(table, number)?)
}

/// The records of a chain that a query chooses.
pub(super) fn audit(connection: &Connection, query: &AuditQuery) -> Result<Vec<Record>, Stop> {
    let (sql, values) = audit_select(query)?;
    let company: CompanyId = query.company;
    let found: Vec<(i64, String, String)> = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.query_map(params_from_iter(values), |row| row.try_into())?.collect()
        })
        .map_err(unread("audit"))?;
    found.into_iter().map(|row| Ok(record(company, row)?)).collect()
}

fn audit_select(query: &AuditQuery) -> Result<(String, Vec<Value>), StoreError> {
    let mut conditions = Conditions::default();
    let after = stored("audit", query.after)?;
    conditions.add("company = ?", [query.company.to_string().into()]);
    conditions.add("sequence > ?", [after.into()]);
    if let Some(token) = query.token {
        conditions.add("token = ?", [token.to_string().into()]);
    }
    if let Some(kind) = &query.kind {
        match kind.strip_suffix('.') {
            // `/` is the character after `.`.
            Some(group) => conditions
                .add("kind >= ? AND kind < ?", [kind.as_str().into(), format!("{group}/").into()]),
            None => conditions.add("kind = ?", [kind.as_str().into()]),
        }
    }
    conditions.values.push(i64::from(query.limit).into());
    let text = conditions.text();
    let sql =
        format!("SELECT sequence, body, hash FROM audit WHERE {text} ORDER BY sequence LIMIT ?");
    Ok((sql, conditions.values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Table;
    use crate::store::contract::{self, LEASES, TOKENS};
    use crate::store::sqlite::schema;

    fn plan(connection: &Connection, sql: &str, values: &[Value]) -> Vec<String> {
        let mut statement =
            connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a plan");
        let steps = statement.query_map(params_from_iter(values), |row| row.get(3)).expect("steps");
        steps.collect::<Result<_, _>>().expect("steps")
    }

    /// That no step of any part of the query sorts or reads a whole table.
    fn runs_on_an_index(connection: &Connection, query: &Query) {
        for part in parts(query).expect("declared columns") {
            let mut values = part.values.clone();
            values.push(50.into());
            for step in plan(connection, &select(query, &part), &values) {
                assert!(step.starts_with("SEARCH") && step.contains("INDEX"), "{query:?}: {step}");
            }
        }
    }

    #[test]
    fn every_way_to_list_tokens_runs_on_an_index_whatever_the_page() {
        let connection = schema::open_in_memory().expect("memory");
        let orders = [
            None,
            Some("serial"),
            Some("holder"),
            Some("holder_name_folded"),
            Some("device"),
            Some("updated"),
        ];
        for order in orders {
            let last = if order == Some("updated") { Value::Integer(7) } else { "x".into() };
            for (descending, after) in [
                (false, None),
                (true, None),
                (false, Some((last.clone(), "id".to_owned()))),
                (true, Some((last.clone(), "id".to_owned()))),
                (false, Some((Value::Null, "id".to_owned()))),
                (true, Some((Value::Null, "id".to_owned()))),
            ] {
                let query =
                    Query { order, descending, after, ..Query::of(&TOKENS, CompanyId::BANK, 50) };
                runs_on_an_index(&connection, &query);
                if matches!(order, None | Some("serial" | "holder_name_folded" | "updated")) {
                    runs_on_an_index(&connection, &query.equals("state", "active"));
                }
            }
        }
    }

    #[test]
    fn chores_over_all_companies_run_on_an_index() {
        static OPERATIONS: Table =
            Table { name: "operations", columns: &["token", "state", "expires", "asker"] };
        let connection = schema::open_in_memory().expect("memory");
        let due = |table| Query {
            company: None,
            at_most: Some(("expires", 7)),
            order: Some("expires"),
            ..Query::of(table, CompanyId::BANK, 50)
        };
        runs_on_an_index(&connection, &due(&LEASES));
        runs_on_an_index(&connection, &due(&OPERATIONS).equals("state", "pending"));
    }

    #[test]
    fn the_history_of_a_token_runs_on_an_index() {
        let connection = schema::open_in_memory().expect("memory");
        let token = contract::id(1);
        let all =
            AuditQuery { company: CompanyId::BANK, after: 7, token: None, kind: None, limit: 50 };
        for query in [
            all.clone(),
            AuditQuery { token: Some(token), ..all.clone() },
            AuditQuery { kind: Some("token.released".to_owned()), ..all },
        ] {
            let (sql, values) = audit_select(&query).expect("in range");
            for step in plan(&connection, &sql, &values) {
                assert!(step.starts_with("SEARCH"), "{query:?}: {step}");
            }
        }
    }

    #[test]
    fn columns_that_are_not_declared_never_reach_the_text() {
        let connection = schema::open_in_memory().expect("memory");
        let stranger = "body) OR (1";
        let all = Query::of(&TOKENS, CompanyId::BANK, 50);
        for query in [
            all.clone().equals(stranger, "x"),
            Query { order: Some(stranger), ..all.clone() },
            Query { at_most: Some((stranger, 1)), ..all.clone() },
            Query { search: Some((&["body) OR (1"], "x".to_owned())), ..all },
        ] {
            assert!(matches!(rows(&connection, &query), Err(Stop::Refused(_))));
            assert!(matches!(count(&connection, &query), Err(Stop::Refused(_))));
        }
    }
}
