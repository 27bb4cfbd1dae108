//! Variables in a text: `$name`, `${name}`, `${name:format}`, `[[name]]`, as Grafana writes them.
//!
//! In SQL every value is judged by the place that it stands in, so that none can break out of it: within quotes it is escaped; formats that quote do so with
//! ClickHouse's escapes; and bare, in code, only what the dashboard itself declares may stand, or a plain word or number. Grafana leaves all of that to the author.

use crate::sql::{Lexer, Place, escaped, word_len};

/// What a variable stands for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) name: String,
    pub(crate) values: Vec<Choice>,
    /// It may have several values: without a format it becomes a quoted list, as the data source has it.
    pub(crate) is_list: bool,
    /// Everything is selected.
    pub(crate) is_all: bool,
    /// What the dashboard has for everything, where it says so; it stands as it is written.
    pub(crate) all_value: Option<String>,
}

/// One value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Choice {
    pub(crate) value: String,
    pub(crate) text: String,
    /// The dashboard's own text says it; it comes neither from a reader nor from data.
    pub(crate) is_declared: bool,
}

/// Why a variable cannot be put in.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InterpolateError {
    /// The format is not known.
    #[error("this viewer does not know the format {format:?} of ${{{name}}}")]
    Format {
        /// The variable.
        name: String,
        /// The format.
        format: String,
    },
    /// The value would break out of its place.
    #[error(
        "the value of ${name} cannot stand at this place of the query; within quotes, or as ${{{name}:singlequote}}, any value can"
    )]
    Place {
        /// The variable.
        name: String,
    },
}

/// One reference in a text.
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    name: &'a str,
    format: Option<&'a str>,
    len: usize,
}

/// The reference that a text begins with.
fn reference(text: &str) -> Option<Reference<'_>> {
    let bracketed = |open: &str, close: &str| {
        let inner = text.strip_prefix(open)?;
        let end = inner.find(close)?;
        let (name, rest) = inner[..end].split_at(word_len(&inner[..end]));
        let format = match rest.chars().next() {
            None => None,
            Some(':') => Some(&rest[1..]),
            Some(_) => return None,
        };
        (!name.is_empty()).then_some(Reference {
            name,
            format,
            len: open.len() + end + close.len(),
        })
    };
    let plain = || {
        let inner = text.strip_prefix('$')?;
        let name = &inner[..word_len(inner)];
        (!name.is_empty()).then_some(Reference {
            name,
            format: None,
            len: 1 + name.len(),
        })
    };
    bracketed("${", "}")
        .or_else(|| bracketed("[[", "]]"))
        .or_else(plain)
}

/// Puts the values of `bound` into a query whose comments have been taken out. References to what is not bound stay.
///
/// # Errors
/// [`InterpolateError`]
pub(crate) fn sql(text: &str, bound: &[Bound]) -> Result<String, InterpolateError> {
    let mut lexer = Lexer::default();
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let reference = matches!(character, '$' | '[')
            .then(|| reference(rest))
            .flatten();
        let found = reference.and_then(|reference| {
            let variable = bound.iter().find(|bound| bound.name == reference.name)?;
            Some((reference, variable))
        });
        let Some((reference, variable)) = found else {
            lexer.step(character);
            done.push(character);
            rest = &rest[character.len_utf8()..];
            continue;
        };
        let placed = placed(variable, reference.format, lexer.place())?;
        if !lexer.bears(&placed) {
            let name = variable.name.clone();
            return Err(InterpolateError::Place { name });
        }
        done.push_str(&placed);
        rest = &rest[reference.len..];
    }
    Ok(done)
}

/// The text of a variable at a place of a query.
fn placed(bound: &Bound, format: Option<&str>, place: Place) -> Result<String, InterpolateError> {
    let (text, quotes_itself) = formatted(bound, format)?;
    match place {
        Place::Quoted(quote) if !quotes_itself => Ok(escaped(&text, quote)),
        Place::Code if !quotes_itself && !may_stand_bare(bound, &text) => {
            let name = bound.name.clone();
            Err(InterpolateError::Place { name })
        }
        _ => Ok(text),
    }
}

fn may_stand_bare(bound: &Bound, text: &str) -> bool {
    let is_declared = bound.values.iter().all(|choice| choice.is_declared);
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let word = text.strip_prefix('-').unwrap_or(text);
    (bound.is_all && bound.all_value.is_some())
        || is_declared
        || (!word.is_empty() && word.chars().all(is_word))
}

/// The values in a format, and whether that quotes each.
fn formatted(bound: &Bound, format: Option<&str>) -> Result<(String, bool), InterpolateError> {
    if let (true, Some(all)) = (bound.is_all, &bound.all_value) {
        return Ok((all.clone(), false));
    }
    let joined = |by: &str, each: &dyn Fn(&Choice) -> String| {
        let each: Vec<String> = bound.values.iter().map(each).collect();
        each.join(by)
    };
    let quoted = |quote: char| {
        move |choice: &Choice| format!("{quote}{}{quote}", escaped(&choice.value, quote))
    };
    let plain = |choice: &Choice| choice.value.clone();
    Ok(match format {
        None if bound.is_list => (joined(",", &quoted('\'')), true),
        Some("singlequote" | "sqlstring") => (joined(",", &quoted('\'')), true),
        Some("doublequote") => (joined(",", &quoted('"')), true),
        None | Some("raw" | "csv") => (joined(",", &plain), false),
        Some("pipe") => (joined("|", &plain), false),
        Some("text") => (joined(" + ", &|choice| choice.text.clone()), false),
        Some("json") => {
            let values: Vec<&str> = bound.values.iter().map(|v| v.value.as_str()).collect();
            let json = match (&values[..], bound.is_list) {
                ([value], false) => serde_json::Value::from(*value),
                _ => serde_json::Value::from(values),
            };
            (json.to_string(), false)
        }
        Some("regex") => {
            let one = |choice: &Choice| regex_escaped(&choice.value);
            match bound.values.len() {
                1 => (joined("|", &one), false),
                _ => (format!("({})", joined("|", &one)), false),
            }
        }
        Some("percentencode") => (percent_encoded(&joined(",", &plain)), false),
        Some("queryparam") => (query_parameters(bound), false),
        Some(format) => {
            return Err(InterpolateError::Format {
                name: bound.name.clone(),
                format: format.to_owned(),
            });
        }
    })
}

fn regex_escaped(text: &str) -> String {
    let special = r"\^$*+?.()|{}[]/";
    let escape = |c: char| special.contains(c).then_some('\\').into_iter().chain([c]);
    text.chars().flat_map(escape).collect()
}

/// A text for a place in a URL where only unreserved characters stand for themselves.
pub(crate) fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// `var-name=value` for each value, as a dashboard's address has it.
pub(crate) fn query_parameters(bound: &Bound) -> String {
    let name = percent_encoded(&bound.name);
    if bound.is_all {
        return format!("var-{name}=$__all");
    }
    let each = |choice: &Choice| format!("var-{name}={}", percent_encoded(&choice.value));
    bound.values.iter().map(each).collect::<Vec<_>>().join("&")
}

/// Puts values into a text for people: a title, or Markdown. It is no SQL; whoever shows it escapes it.
pub(crate) fn prose(text: &str, bound: &[Bound]) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let found = reference(rest).and_then(|reference| {
            let variable = bound.iter().find(|bound| bound.name == reference.name)?;
            let text = match (variable.is_all, reference.format) {
                (true, None | Some("text")) => "All".to_owned(),
                (_, format) => formatted(variable, format.or(Some("text"))).ok()?.0,
            };
            Some((reference.len, text))
        });
        match found {
            Some((len, text)) => {
                done.push_str(&text);
                rest = &rest[len..];
            }
            None => {
                done.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(name: &str, values: &[&str], is_list: bool) -> Bound {
        let choice = |value: &&str| Choice {
            value: (*value).to_owned(),
            text: format!("the {value}"),
            is_declared: false,
        };
        Bound {
            name: name.to_owned(),
            values: values.iter().map(choice).collect(),
            is_list,
            ..Bound::default()
        }
    }

    #[test]
    fn each_form_and_format_becomes_what_grafana_makes_of_it() {
        let bound = [of("one", &["DE"], false), of("many", &["DE", "it's"], true)];
        let cases = [
            ("$one ${one} [[one]] '$one'", "DE DE DE 'DE'"),
            ("IN ($many)", r"IN ('DE','it\'s')"),
            ("${many:singlequote}", r"'DE','it\'s'"),
            ("${many:sqlstring}", r"'DE','it\'s'"),
            ("${one:doublequote}", "\"DE\""),
            ("'${many:csv}'", r"'DE,it\'s'"),
            ("'${many:raw}'", r"'DE,it\'s'"),
            ("'${many:pipe}' [[one:raw]]", r"'DE|it\'s' DE"),
            ("'${many:regex}'", r"'(DE|it\'s)'"),
            ("'${many:json}'", r#"'["DE","it\'s"]'"#),
            ("'${one:text}'", "'the DE'"),
            ("'${many:queryparam}'", "'var-many=DE&var-many=it%27s'"),
            (
                "$other ${other:csv} $__interval [x] $",
                "$other ${other:csv} $__interval [x] $",
            ),
            ("$ones $one_ $one.x", "$ones $one_ DE.x"),
        ];
        for (text, expected) in cases {
            assert_eq!(sql(text, &bound).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_stand_bare_is_refused_and_what_is_declared_may() {
        let typed = |value| [of("v", &[value], false)];
        for value in ["1 OR 1=1", "a,b", "", "'x'", "1--", "f()"] {
            assert!(sql("x = $v", &typed(value)).is_err(), "{value}");
        }
        for value in ["1", "-1.5", "user_1", "30s"] {
            assert!(sql("x = $v", &typed(value)).is_ok(), "{value}");
        }
        assert!(sql("x = 1 -$v", &typed("-1")).is_err());
        let mut declared = typed("count() / 2");
        declared[0].values[0].is_declared = true;
        assert_eq!(
            sql("SELECT $v", &declared).as_deref(),
            Ok("SELECT count() / 2")
        );
    }

    #[test]
    fn a_format_that_quotes_cannot_stand_in_quotes() {
        let bound = [of("v", &["a"], false)];
        assert!(sql("'${v:singlequote}'", &bound).is_err());
        assert!(sql("${v:lucene}", &bound).is_err());
    }

    #[test]
    fn what_a_dashboard_has_for_everything_stands_as_written() {
        let mut all = of("v", &["a", "b"], true);
        all.is_all = true;
        assert_eq!(
            sql("IN ($v)", &[all.clone()]).as_deref(),
            Ok("IN ('a','b')")
        );
        all.all_value = Some(".*".to_owned());
        assert_eq!(
            sql("match(x, '$v')", &[all.clone()]).as_deref(),
            Ok("match(x, '.*')")
        );
        assert_eq!(prose("of $v", &[all]), "of All");
    }

    /// The query with each quoted text replaced by a mark: what ClickHouse takes for code.
    fn code(sql: &str) -> String {
        let mut lexer = Lexer::default();
        let mut code = String::new();
        for character in sql.chars() {
            let before = lexer.place();
            lexer.step(character);
            if before == Place::Code {
                code.push(character);
            }
        }
        assert_eq!(lexer.place(), Place::Code, "{sql}");
        code
    }

    proptest! {
        #[test]
        fn no_value_breaks_out_of_its_quotes(values in prop::collection::vec(any::<String>(), 1..3), hostile in r#"['"`\\\-/*#$ {}\[\]a;()\n]{0,12}"#) {
            let values: Vec<&str> = values.iter().map(String::as_str).chain([hostile.as_str()]).collect();
            let benign = vec!["x"; values.len()];
            for template in [
                "SELECT '$v', \"$v\", `$v` FROM t WHERE a = '${v:raw}' AND b IN (${v:singlequote}) OR (${v:sqlstring})",
                "SELECT ${v:doublequote}, '${v:csv}', '${v:json}', '${v:pipe}', '${v:regex}', '${v:text}'",
            ] {
                let put = |values: &[&str]| sql(template, &[of("v", values, false)]).unwrap();
                prop_assert_eq!(code(&put(&values)), code(&put(&benign)));
            }
            let list = |values: &[&str]| sql("SELECT 1 WHERE a IN ($v) AND 1", &[of("v", values, true)]).unwrap();
            prop_assert_eq!(code(&list(&values)), code(&list(&benign)));
        }

        #[test]
        fn a_bare_value_is_one_word_or_refused(value in any::<String>(), hostile in r#"['"`\\\-/*#$ a1;()\n]{0,8}"#) {
            for value in [value, hostile] {
                if let Ok(sql) = sql("SELECT $v + 1", &[of("v", &[&value], false)]) {
                    prop_assert!(sql.chars().all(|c| c.is_ascii_alphanumeric() || " _.+-".contains(c)), "{}", sql);
                }
            }
        }
    }
}
