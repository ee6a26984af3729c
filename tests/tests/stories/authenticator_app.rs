//! The "authenticator app" profile with programs of others: `oathtool` makes the codes that the
//! server accepts, and `zbarimg` reads the QR code that a phone's camera would.

use std::path::Path;
use std::process::Command;

use semilla_core::qr;
use semilla_tests::bodies::authenticator_app_policy;
use semilla_tests::http::Expect;
use semilla_tests::world::World;
use serde_json::json;

fn said_by(command: &mut Command) -> String {
    let ran =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/run"));
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("UTF-8").trim_end().to_owned()
}

/// What `zbarimg` reads in a picture.
fn read_from(picture: &Path) -> String {
    said_by(Command::new("zbarimg").args(["--quiet", "--raw"]).arg(picture))
}

/// A parameter of a key URI.
fn parameter<'u>(uri: &'u str, name: &str) -> &'u str {
    let (_, query) = uri.split_once('?').expect("a query");
    let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    pair.unwrap_or_else(|| panic!("no {name} in it"))
}

/// An enrollment for Laura's authenticator app: its id, the token, the URI and the picture.
async fn shown(world: &World) -> (String, String, String, String) {
    let company = &world.company;
    let policy = authenticator_app_policy();
    company.program.send("PUT", "/api/v1/policies", &[], Some(policy)).await.expect(200);
    let (token, _, enrollment) = world.assigned(company, &company.laura).await;
    let path = format!("/api/v1/enrollments/{enrollment}/otpauth");
    let shown = company.program.post(&path, json!({})).await.expect(200);
    let text = |name: &str| shown[name].as_str().expect("a text").to_owned();
    (enrollment, token, text("uri"), text("qr_svg"))
}

#[tokio::test(flavor = "multi_thread")]
async fn oathtool_makes_the_codes_that_are_accepted() {
    let world = World::begin().await;
    let (enrollment, token, uri, _) = shown(&world).await;
    assert!(
        uri.starts_with("otpauth://totp/") && !uri.contains('+') && !uri.ends_with('='),
        "{uri}"
    );
    for (name, value) in [("algorithm", "SHA1"), ("digits", "6"), ("period", "30")] {
        assert_eq!(parameter(&uri, name), value);
    }
    let code = || {
        let now = format!("@{}", world.now().seconds());
        let secret = parameter(&uri, "secret");
        said_by(Command::new("oathtool").args(["--totp", "--base32", "--now", &now, secret]))
    };
    let program = &world.company.program;
    assert!(!program.verify(&token, &code()).await, "nothing is live before it is proven");
    let confirm = format!("/api/v1/enrollments/{enrollment}/confirm");
    program.post(&confirm, json!({"code": "000000"})).await.refused("code-invalid");
    program.post(&confirm, json!({"code": code()})).await.expect(200);
    assert!(!program.verify(&token, &code()).await, "security 26: that code is used");
    for _ in 0..3 {
        world.pass(30).await;
        assert!(program.verify(&token, &code()).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zbarimg_reads_the_pictures_byte_for_byte() {
    let world = World::begin().await;
    let (_, _, uri, svg) = shown(&world).await;
    let folder = tempfile::tempdir().expect("a folder");
    let png = folder.path().join("code.png");
    std::fs::write(&png, &*qr::png(&uri, 6).expect("a QR code")).expect("written");
    assert_eq!(read_from(&png), uri);
    assert_eq!(*svg, *qr::svg(&uri, "Código QR · QR code").expect("a QR code"), "the same picture");
    let drawn = folder.path().join("code.svg");
    std::fs::write(&drawn, svg).expect("written");
    let painted = folder.path().join("painted.png");
    said_by(Command::new("rsvg-convert").arg("--width=600").arg(&drawn).arg("-o").arg(&painted));
    assert_eq!(read_from(&painted), uri);
}
