//! A sign of life while something takes longer than a second: on standard error, and only where a
//! person is looking.

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Waits for `work`; after a second says so, with the seconds that have passed.
pub(crate) async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let mut work = std::pin::pin!(work);
    for seconds in 0_u64.. {
        tokio::select! {
            done = &mut work => {
                if seconds > 0 {
                    show("\r\u{1b}[K");
                }
                return done;
            }
            () = tokio::time::sleep(SECOND) => show(&format!("\r{what} {} s", seconds + 1)),
        }
    }
    work.await
}

fn show(text: &str) {
    let mut err = anstream::stderr();
    // Decoration: what cannot be shown is left out.
    let _ = write!(err, "{text}").and_then(|()| err.flush());
}
