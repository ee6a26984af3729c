//! placeholder
use super::describe::{Kind, Text};
pub(super) struct Html;
impl Kind for Html {
    const MEDIA_TYPE: &'static str = "text/html";
    fn example() -> serde_json::Value {
        "".into()
    }
}
pub(super) async fn page() -> Text<Html> {
    Text::of("")
}
pub(super) async fn style() -> Text<Html> {
    Text::of("")
}
pub(super) async fn script() -> Text<Html> {
    Text::of("")
}
