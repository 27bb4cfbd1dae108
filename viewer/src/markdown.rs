//! Text panels: Markdown to HTML. HTML within it is shown as text, never passed on.

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, html::push_html};
use serde_json::Value;

use crate::dashboards::Panel;
use crate::interpolate::{Bound, prose};

/// The HTML of a text panel.
pub(crate) fn html(panel: &Panel, bound: &[Bound]) -> String {
    let content = panel.options.get("content").and_then(Value::as_str);
    let text = prose(content.unwrap_or_default(), bound);
    let events = Parser::new_ext(&text, Options::ENABLE_TABLES).map(harmless);
    let mut html = String::new();
    push_html(&mut html, events);
    html
}

/// Nothing runs, and nothing is fetched.
fn harmless(event: Event<'_>) -> Event<'_> {
    match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        Event::Start(Tag::Image { .. }) => Event::Text(CowStr::Borrowed("")),
        Event::End(pulldown_cmark::TagEnd::Image) => Event::Text(CowStr::Borrowed("")),
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => {
            let dest_url = match is_followed(&dest_url) {
                true => dest_url,
                false => CowStr::Borrowed("#"),
            };
            Event::Start(Tag::Link {
                link_type,
                dest_url,
                title,
                id,
            })
        }
        other => other,
    }
}

/// Links to the web and to pages here; none that a browser would run.
pub(crate) fn is_followed(url: &str) -> bool {
    let scheme = url.split(['/', '?', '#']).next().unwrap_or_default();
    !scheme.contains(':') || url.starts_with("http://") || url.starts_with("https://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(content: &str) -> String {
        let panel = Panel {
            options: serde_json::json!({ "content": content }),
            ..Panel::default()
        };
        html(&panel, &[])
    }

    #[test]
    fn markdown_is_shown_and_html_within_it_is_text() {
        assert_eq!(shown("# A\n\n*b*"), "<h1>A</h1>\n<p><em>b</em></p>\n");
        let hostile = shown(
            "a <b onclick=x>b</b> ![i](https://x/y.png) [l](javascript:alert(1)) [ok](/d/a)\n\n<script>x</script>",
        );
        assert!(
            !hostile.contains("<script") && !hostile.contains("<b ") && !hostile.contains("<img")
        );
        assert!(!hostile.contains("javascript:") && hostile.contains("href=\"/d/a\""));
    }
}
