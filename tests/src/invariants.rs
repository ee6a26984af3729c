//! What must always be true of a database that no server holds, whatever happened before: the
//! promises of the README as far as the tables show them.

use std::path::Path;

use crate::process::sqlite;

/// Something that must never be found: how it would be, and what brings it about in a database with
/// an active token, an executed release and a pending one.
struct Never {
    what: &'static str,
    found_by: &'static str,
    brought_about_by: &'static str,
}

const NEVER: [Never; 12] = [
    Never {
        what: "two seeds kept of one token",
        found_by: "SELECT token FROM generations WHERE state = 'kept' GROUP BY token HAVING count(*) > 1",
        brought_about_by: "INSERT INTO generations SELECT company, id || 'x', version, body, token, state
                           FROM generations WHERE state = 'kept'",
    },
    Never {
        what: "codes accepted of a token that is not active",
        found_by: "SELECT v.token FROM verifiers v JOIN tokens t ON t.id = v.token
                   WHERE v.open = 1 AND t.state <> 'active'",
        brought_about_by: "UPDATE tokens SET state = 'blocked' WHERE state = 'active'",
    },
    Never {
        what: "an active token whose codes nobody can check",
        found_by: "SELECT t.id FROM tokens t LEFT JOIN verifiers v ON v.token = t.id
                   WHERE t.state = 'active' AND coalesce(v.open = 1 AND v.sealed IS NOT NULL, 0) = 0",
        brought_about_by: "UPDATE verifiers SET open = 0",
    },
    Never {
        what: "codes accepted of another generation than the one that is kept",
        found_by: "SELECT v.token FROM verifiers v WHERE v.open = 1 AND NOT EXISTS (
                       SELECT 1 FROM generations g WHERE g.token = v.token AND g.state = 'kept'
                       AND json_extract(g.body, '$.number') = v.generation)",
        brought_about_by: "UPDATE verifiers SET generation = generation - 1 WHERE open = 1",
    },
    Never {
        what: "a seed of a token that nobody holds",
        found_by: "SELECT v.token FROM verifiers v JOIN tokens t ON t.id = v.token
                   WHERE v.sealed IS NOT NULL AND t.state IN ('stock', 'company', 'assigned', 'retired')",
        brought_about_by: "UPDATE tokens SET state = 'company'",
    },
    Never {
        what: "a holder of a token in a pool, or none of one that is held",
        found_by: "SELECT id FROM tokens WHERE (holder IS NULL) <> (state IN ('stock', 'company', 'retired'))",
        brought_about_by: "UPDATE tokens SET holder = NULL",
    },
    Never {
        what: "two tokens of one holder",
        found_by: "SELECT holder FROM tokens WHERE holder IS NOT NULL AND kind = 'virtual'
                   GROUP BY company, holder HAVING count(*) > 1",
        brought_about_by: "UPDATE tokens SET holder = (SELECT max(holder) FROM tokens)",
    },
    Never {
        what: "a live seed on a phone that is revoked",
        found_by: "SELECT t.id FROM tokens t JOIN devices d ON d.id = t.device
                   WHERE t.state = 'active' AND d.state = 'revoked'",
        brought_about_by: "UPDATE devices SET state = 'revoked'",
    },
    Never {
        what: "an operation pending on a token that is in a pool",
        found_by: "SELECT o.id FROM operations o JOIN tokens t ON t.id = o.token
                   WHERE o.state = 'pending' AND t.holder IS NULL",
        brought_about_by: "UPDATE operations SET state = 'pending', token = (SELECT id FROM tokens WHERE holder IS NULL)",
    },
    Never {
        what: "an executed operation without its one record, or the other way round",
        found_by: "SELECT * FROM (SELECT (SELECT count(*) FROM operations WHERE state = 'executed') AS done,
                   (SELECT count(*) FROM audit WHERE kind = 'operation.executed') AS recorded) WHERE done <> recorded",
        brought_about_by: "UPDATE operations SET state = 'executed' WHERE state = 'pending'",
    },
    Never {
        what: "a person without the one record of having been created",
        found_by: "SELECT u.id FROM users u LEFT JOIN audit a
                   ON a.kind = 'user.created' AND json_extract(a.body, '$.subject.user') = u.id
                   WHERE u.role = 'secondary' GROUP BY u.id HAVING count(a.sequence) <> 1",
        brought_about_by: "INSERT INTO users SELECT company, id || 'x', version, body, login || 'x', name_folded, role, state
                           FROM users WHERE role = 'secondary'",
    },
    Never {
        what: "a serial number that names nothing",
        found_by: "SELECT n.name FROM names n WHERE n.scope = 'serial'
                   AND NOT EXISTS (SELECT 1 FROM tokens t WHERE t.id = n.id)",
        brought_about_by: "DELETE FROM tokens",
    },
];

/// The first thing in the database that must never be, if there is one.
fn found_in(database: &Path) -> Option<String> {
    let damage = sqlite(database, "PRAGMA integrity_check");
    if damage != "ok" {
        return Some(format!("a damaged database: {damage}"));
    }
    // All at once, and one by one only where something is found.
    let all: Vec<_> = NEVER.iter().map(|never| never.found_by).collect();
    if sqlite(database, &all.join(";")).is_empty() {
        return None;
    }
    NEVER.iter().find_map(|Never { what, found_by, .. }| {
        Some(sqlite(database, found_by))
            .filter(|found| !found.is_empty())
            .map(|found| format!("{what}: {found}"))
    })
}

/// Looks for everything that must never be.
#[track_caller]
pub fn hold_in(database: &Path) {
    assert_eq!(found_in(database), None);
}

/// Brings each of them about in a copy of a sound database, and looks whether it is found.
#[track_caller]
pub fn each_is_found_in_a_copy_of(database: &Path) {
    hold_in(database);
    let folder = tempfile::tempdir().expect("a folder");
    for Never { what, found_by, brought_about_by } in NEVER {
        let copy = folder.path().join("copy.db");
        std::fs::copy(database, &copy).expect("copied");
        sqlite(&copy, &format!("PRAGMA ignore_check_constraints = 1; {brought_about_by}"));
        assert_ne!(sqlite(&copy, found_by), "", "{what}: not found");
    }
}
