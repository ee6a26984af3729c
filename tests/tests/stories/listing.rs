//! Lists: filters, search, every way to sort, and pages that neither skip nor repeat while others
//! add to the list; versions that stop two administrators from overwriting each other; and keys
//! that make asking twice asking once (security 104).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use semilla_tests::http::{Expect, Program};
use semilla_tests::world::World;
use serde_json::{Value, json};

/// Everything of a list, page by page. `meanwhile` is called between two pages.
async fn all(program: &Program, query: &str, mut meanwhile: impl AsyncFnMut()) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = program.get(&format!("{query}&limit=7{cursor}")).await.expect(200);
        let of_page = page["items"].as_array().expect("items").clone();
        assert!(of_page.len() <= 7);
        items.extend(of_page);
        let Some(next) = page["next_cursor"].as_str() else { return items };
        cursor = format!("&cursor={next}");
        meanwhile().await;
    }
}

fn column<'i>(items: &'i [Value], name: &str) -> Vec<&'i str> {
    items.iter().map(|item| item[name].as_str().unwrap_or_default()).collect()
}

/// A company with 30 tokens, the first 12 of them given to people.
async fn stocked() -> World {
    let world = World::begin().await;
    let program = &world.company.program;
    for number in 0..30 {
        let (token, _) = world.token_in_pool(&world.company).await;
        if number < 12 {
            let names = ["Álvaro", "Óscar", "andrea", "Zoé", "Ñusta", "ximena"];
            let name = format!("{} Ríos", names[number % names.len()]);
            let person = json!({"login": format!("persona.{number}"), "name": name});
            let person = program.post("/api/v1/users", person).await.expect(201);
            let assign = format!("/api/v1/tokens/{token}/assign");
            program.post(&assign, json!({"user": person["id"]})).await.expect(201);
        }
        world.clock.advance(Duration::from_secs(1));
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_filtered_searched_and_sorted_by_every_column_both_ways() {
    let world = stocked().await;
    let program = &world.company.program;
    for (filter, count) in [
        ("state=company", 18),
        ("state=assigned", 12),
        ("state=active", 0),
        ("q=oscar", 2),
        ("q=%C3%B1usta", 2),
        ("q=fef490004", 10),
        ("q=FEF4900040", 1),
        ("q=rios&state=assigned", 12),
        ("kind=virtual", 30),
        ("kind=physical", 0),
    ] {
        let page = program.get(&format!("/api/v1/tokens?{filter}&limit=100")).await.expect(200);
        assert_eq!(page["total"], count, "{filter}");
        assert_eq!(page["items"].as_array().expect("items").len(), count, "{filter}");
    }
    for (sort, name) in [
        ("serial", "serial"),
        ("holder_name", "holder_name"),
        ("updated", "updated_at"),
        ("state", "state"),
    ] {
        let up = all(program, &format!("/api/v1/tokens?sort={sort}"), async || {}).await;
        let mut down = all(program, &format!("/api/v1/tokens?sort=-{sort}"), async || {}).await;
        down.reverse();
        assert_eq!(column(&up, "id"), column(&down, "id"), "{sort}");
        assert_eq!(up.len(), 30);
        let shown = column(&up, name);
        let fold = |text: &&str| semilla_core::text::fold(text);
        if sort != "state" {
            assert!(shown.is_sorted_by_key(fold), "{sort}: {shown:?}");
        }
    }
    program.get("/api/v1/tokens?sort=holder").await.refused("validation");
    program.get("/api/v1/tokens?cursor=nonsense").await.refused("validation");
    let page = program.get("/api/v1/tokens?sort=serial&limit=7").await.expect(200);
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    let other = format!("/api/v1/tokens?sort=-updated&cursor={cursor}");
    program.get(&other).await.refused("validation");
    for limit in ["0", "101", "-1", "x"] {
        program.get(&format!("/api/v1/tokens?limit={limit}")).await.refused("validation");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_neither_skip_nor_repeat_while_others_add_and_change() {
    let world = stocked().await;
    let program = &world.company.program;
    let there = all(program, "/api/v1/tokens?sort=serial", async || {}).await;
    let there: BTreeSet<&str> = column(&there, "id").into_iter().collect();
    for sort in ["serial", "-serial"] {
        let seen = all(program, &format!("/api/v1/tokens?sort={sort}"), async || {
            world.token_in_pool(&world.company).await;
        })
        .await;
        let ids = column(&seen, "id");
        let once: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), once.len(), "{sort}: nothing twice");
        assert!(there.is_subset(&once), "{sort}: nothing left out");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_administrators_with_the_same_version_one_changes_and_the_other_is_told() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let token = format!("/api/v1/tokens/{}", active.token);
    let reply = program.get(&token).await;
    let etag = reply.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    let block = |cause: &str| {
        let (body, path) = (json!({"cause": cause}), format!("{token}/block"));
        let etag = etag.clone();
        async move { program.send("POST", &path, &[("if-match", &etag)], Some(body)).await }
    };
    let (one, other) = tokio::join!(block("user_inactive"), block("technical_failure"));
    let (done, refused) = if one.status.as_u16() == 200 { (one, other) } else { (other, one) };
    let done = done.expect(200);
    refused.refused("precondition-failed");
    assert_eq!(program.get(&token).await.expect(200)["last_cause"], done["last_cause"]);
    for wrong in ["\"1", "W/\"1\"", "1", "\"01\""] {
        let body = Some(json!({}));
        let headers = [("if-match", wrong)];
        let reply = program.send("POST", &format!("{token}/unblock"), &headers, body).await;
        reply.refused("precondition-failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_104_the_same_key_asks_once_also_fifty_times_at_once() {
    let mut world = World::begin().await;
    let program = &world.company.program;
    let body = json!({"login": "pedro.salas", "name": "Pedro Salas"});
    let headers = [("idempotency-key", "one-key")];
    let sent = (0..50).map(|_| program.send("POST", "/api/v1/users", &headers, Some(body.clone())));
    let answers = futures_util::future::join_all(sent).await;
    let mut bodies = BTreeSet::new();
    for answer in answers {
        match answer.status.as_u16() {
            201 => drop(bodies.insert(answer.body.to_vec())),
            _ => drop(answer.refused("idempotency-conflict")),
        }
    }
    assert_eq!(bodies.len(), 1, "one answer, to the byte");
    let made = world.records_since(&world.company, 0, "user.created").await;
    assert_eq!(made.iter().filter(|it| it["detail"]["login"] == "pedro.salas").count(), 1);

    // Also after a restart, and a day long.
    world.restart().await;
    let program = &world.company.program;
    let again = program.send("POST", "/api/v1/users", &headers, Some(body.clone())).await;
    assert_eq!(again.status.as_u16(), 201);
    assert_eq!(Some(&again.body.to_vec()), bodies.first());
    let other = json!({"login": "pedro.salas", "name": "Otro"});
    program
        .send("POST", "/api/v1/users", &headers, Some(other))
        .await
        .refused("idempotency-mismatch");
    let elsewhere = program.send("POST", "/api/v1/stock/issue", &headers, Some(body.clone())).await;
    assert!(elsewhere.status.as_u16() >= 400);
    let stranger = world.another_company("Industrias del Sur").await;
    stranger.program.send("POST", "/api/v1/users", &headers, Some(body.clone())).await.expect(201);
    world.pass(24 * 3600 + 60).await;
    let late = world.company.program.send("POST", "/api/v1/users", &headers, Some(body)).await;
    late.refused("validation");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_ends_with_the_change_or_with_its_time() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let release = format!("/api/v1/tokens/{}/release", active.token);
    let asked = program.post(&release, json!({"cause": "seed_release"})).await.expect(202);
    let path = format!("/api/v1/operations/{}", asked["id"].as_str().expect("an id"));
    let begun = Instant::now();
    let operation = program.get(&format!("{path}?wait=1")).await.expect(200);
    assert_eq!(operation["state"], "pending");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let begun = Instant::now();
    let waiting_path = format!("{path}?wait=25");
    let waiting = program.get(&waiting_path);
    let answered = async {
        let inbox = active.administrator.inbox().await.expect("the inbox");
        let number = asked["match_number"].as_str().expect("a number");
        active.administrator.approve(inbox.requests[0].id(), number).await.expect("approved");
    };
    let (operation, ()) = tokio::join!(waiting, answered);
    assert_eq!(operation.expect(200)["state"], "executed");
    assert!(begun.elapsed() < Duration::from_secs(20), "woken, and not timed out");
    for wait in ["31", "-1", "x"] {
        program.get(&format!("{path}?wait={wait}")).await.refused("validation");
    }
}
