//! What a new group's files say. Pure: names, numbers and the present text of the list come in, texts come out.

use activity_consumers::template;

use super::Error;

/// Longest name: with a longer one the generated code would need other line breaks.
const NAME_CHARS_MAX: usize = 30;
/// Names that Rust keeps for itself, and those that mean something else in the code around a group.
const RESERVED: &[&str] = &[
    "abstract", "alloc", "as", "async", "await", "become", "box", "break", "const", "continue",
    "core", "crate", "do", "dyn", "else", "enum", "err", "event_id", "extern", "false", "final",
    "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut",
    "none", "ok", "option", "override", "priv", "pub", "ref", "result", "return", "self", "some",
    "static", "std", "string", "struct", "super", "tests", "time", "trait", "true", "try", "type",
    "typeof", "unsafe", "unsized", "use", "uuid", "vec", "virtual", "where", "while", "yield",
];

/// A group's name, in both of its forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `page_views`
    pub snake: String,
    /// `PageViews`
    pub camel: String,
}

impl Name {
    /// Takes what can be a module, a Kafka group, a metric label and part of a table's name at once.
    ///
    /// # Errors
    /// [`Error::BadName`]
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: String| {
            Err(Error::BadName {
                name: text.to_owned(),
                why,
            })
        };
        let is_word = text.starts_with(|first: char| first.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            && !text.contains("__")
            && !text.ends_with('_');
        if !is_word {
            return bad(
                "a name is small letters, digits and single underscores, beginning with a letter: page_views"
                    .to_owned(),
            );
        }
        if text.len() > NAME_CHARS_MAX {
            return bad(format!("it may have {NAME_CHARS_MAX} characters"));
        }
        let name = Self {
            snake: text.to_owned(),
            camel: camel(text),
        };
        if RESERVED.contains(&text) || words(template::GROUP).any(|word| word == name.camel) {
            return bad("the group's own code means something else by it".to_owned());
        }
        Ok(name)
    }

    /// The table that the scaffold writes to.
    pub fn table(&self) -> String {
        format!("{}_clicks", self.snake)
    }

    /// A text of the template, under this name.
    pub fn fill(&self, text: &str) -> String {
        text.replace("template_group", &self.snake)
            .replace("TemplateGroup", &self.camel)
    }
}

fn camel(snake: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        let first = chars.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    };
    snake.split('_').map(capital).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// A file that is to be written, by its path in the source tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// The files of a new group.
pub fn files(name: &Name, migration: u32) -> Vec<File> {
    let file = |path: String, text: &str| File {
        path,
        text: name.fill(text),
    };
    let snake = &name.snake;
    let snapshot = template::SNAPSHOT
        .replace("tests/new_group.rs", "tests/golden.rs")
        .replace("\"golden::told(GROUP)\"", "told");
    vec![
        file(format!("consumers/src/groups/{snake}.rs"), template::GROUP),
        file(
            format!("schemas/clickhouse/{migration:04}_{snake}.sql"),
            template::MIGRATION,
        ),
        file(
            format!("consumers/tests/snapshots/golden__{snake}.snap"),
            &snapshot,
        ),
        file(
            format!("grafana/dashboards/{snake}.json"),
            template::DASHBOARD,
        ),
    ]
}

/// The number of the next migration, by the names of those that are there.
pub fn next_migration<'a>(files: impl IntoIterator<Item = &'a str>) -> u32 {
    let numbers = files.into_iter().filter_map(|file| {
        let (number, _) = file.strip_suffix(".sql")?.split_once('_')?;
        number.parse::<u32>().ok()
    });
    numbers.max().unwrap_or(0) + 1
}

/// The text of `groups/mod.rs` with one more group: its module among the others, in their order, and its line at the end of the list. None: it is not such a text.
pub fn listed(list: &str, name: &Name) -> Option<String> {
    let module = format!("pub mod {};\n", name.snake);
    let first = list.find("\npub mod ")? + 1;
    let modules = list[first..]
        .split_inclusive('\n')
        .take_while(|line| line.starts_with("pub mod "));
    let before: usize = modules
        .take_while(|line| **line < *module)
        .map(str::len)
        .sum();
    let groups = list.find("pub const GROUPS: &[Group] = &[\n")?;
    let end = groups + list[groups..].find("];")?;
    let (head, tail) = list.split_at(end);
    let (top, middle) = head.split_at(first + before);
    let entry = format!("    Group::of::<{}::{}>(),\n", name.snake, name.camel);
    Some(format!("{top}{module}{middle}{entry}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_name_that_cannot_be_everywhere_is_refused() {
        for bad in [
            "",
            "Growth",
            "page-views",
            "9lives",
            "_x",
            "x_",
            "a__b",
            "ünder",
            "type",
            "mod",
            "event",
            "output",
            "self",
            "string",
            "../etc",
            "a b",
            "x".repeat(31).as_str(),
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(name("page_views2").camel, "PageViews2");
    }

    #[test]
    fn nothing_of_the_template_is_left_in_the_files_of_a_group() {
        let files = files(&name("page_views"), 11);
        for file in &files {
            assert!(
                !file.text.to_lowercase().contains("template"),
                "{}",
                file.text
            );
            assert!(file.text.contains("page_views"), "{}", file.path);
        }
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        insta::assert_json_snapshot!(paths);
    }

    #[test]
    fn the_dashboard_is_json_and_explains_its_panels() {
        let files = files(&name("page_views"), 11);
        let dashboard = files
            .iter()
            .find(|file| file.path.ends_with(".json"))
            .unwrap();
        let dashboard: serde_json::Value = serde_json::from_str(&dashboard.text).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        assert_eq!(panels.len(), 2);
        for panel in panels {
            assert!(!panel["description"].as_str().unwrap().is_empty());
            let sql = panel["targets"][0]["rawSql"].as_str().unwrap();
            assert!(sql.contains("FROM page_views_clicks"), "{sql}");
        }
    }

    #[test]
    fn the_tutorial_shows_what_is_written() {
        let page = include_str!("../../../docs/write-your-own-group.md");
        let migration = page.split("schemas/clickhouse/").nth(1).unwrap();
        let number = migration[..4].parse().unwrap();
        for file in files(&name("countries"), number) {
            assert!(page.contains(&file.path), "{}", file.path);
            let shown = match file.path.rsplit_once('.') {
                Some((_, "json")) => continue,
                // After its head, which names the file that it is of.
                Some((_, "snap")) => file.text.splitn(5, '\n').nth(4).unwrap(),
                _ => &file.text,
            };
            assert!(
                page.contains(shown),
                "the page does not show this:\n{shown}"
            );
        }
    }

    #[test]
    fn migrations_are_numbered_on() {
        assert_eq!(
            next_migration(["0001_a.sql", "0010_b.sql", "readme.md"]),
            11
        );
        assert_eq!(next_migration([]), 1);
    }

    #[test]
    fn a_group_is_listed_among_the_others() {
        let list = include_str!("../../../consumers/src/groups/mod.rs");
        for new in ["aardvark", "growth", "zebra"] {
            let listed = listed(list, &name(new)).unwrap();
            let modules: Vec<&str> = listed
                .lines()
                .filter(|line| line.starts_with("pub mod "))
                .collect();
            assert!(modules.is_sorted(), "{modules:?}");
            assert!(modules.contains(&format!("pub mod {new};").as_str()));
            let entry = format!("    Group::of::<{new}::{}>(),\n];", camel(new));
            assert!(listed.contains(&entry), "{listed}");
            assert_eq!(listed.lines().count(), list.lines().count() + 2);
        }
        assert_eq!(super::listed("pub mod x;", &name("growth")), None);
    }
}
