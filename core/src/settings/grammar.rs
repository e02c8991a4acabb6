//! The small languages of `group-by`, `aggregates` and `timestamp-field`: text → columns.
//! Each error is the end of a sentence that begins with the setting and its value. Whether two
//! columns have the same name is for `config`.

use crate::settings::parse::parse_name;
use crate::values::shape::{Aggregate, Column, Function, Number, TimeField, TimeUnit};

/// Reads the key columns: `origin, payload.kind as kind`.
pub(super) fn parse_group_by(text: &str) -> Result<Vec<Column>, String> {
    let hint = "write origin, or \"origin, payload.kind as kind\"";
    split_list(text)?
        .into_iter()
        .map(|item| {
            let (path, name) = split_as(&item)?;
            let path = parse_path(path).map_err(|why| format!("{why}; {hint}"))?;
            let name = column_name(name, path.last().expect("a path has a name"))?;
            Ok(Column { path, name })
        })
        .collect()
}

/// Reads the value columns: `count, sum(bytes), sum(price decimal(18,2)), max(latency) as worst`.
pub(super) fn parse_aggregates(text: &str) -> Result<Vec<Aggregate>, String> {
    split_list(text)?
        .into_iter()
        .map(|item| parse_aggregate(&item))
        .collect()
}

fn parse_aggregate(item: &str) -> Result<Aggregate, String> {
    let (call, name) = split_as(item)?;
    if call == "count" {
        let name = column_name(name, "count")?;
        return Ok(Aggregate {
            function: Function::Count,
            path: Vec::new(),
            number: Number::Integer,
            name,
        });
    }
    let fail = || {
        format!(
            "\"{item}\" is not an aggregate; write count, sum(FIELD), min(FIELD), max(FIELD) or \
             avg(FIELD), for decimals sum(FIELD decimal(18,2))"
        )
    };
    let (word, argument) = call
        .strip_suffix(')')
        .and_then(|c| c.split_once('('))
        .ok_or_else(fail)?;
    let function = match word.trim() {
        "sum" => Function::Sum,
        "min" => Function::Min,
        "max" => Function::Max,
        "avg" => Function::Avg,
        _ => return Err(fail()),
    };
    let (path, number) = match split_word(argument) {
        (path, None) => (path, Number::Integer),
        (path, Some(number)) => {
            let decimal = parse_decimal(number).ok_or_else(|| {
                format!(
                    "\"{number}\" is not a type of number; write decimal(PRECISION,SCALE) with at \
                     most 18 digits, or nothing for integers"
                )
            })?;
            (path, decimal)
        }
    };
    let path = parse_path(path).map_err(|why| format!("{why}; write {}(FIELD)", word.trim()))?;
    let default = format!(
        "{}_{}",
        word.trim(),
        path.last().expect("a path has a name")
    );
    Ok(Aggregate {
        function,
        number,
        name: column_name(name, &default)?,
        path,
    })
}

/// `decimal(18,2)`; `None` for anything else.
fn parse_decimal(text: &str) -> Option<Number> {
    let inner = text
        .strip_prefix("decimal")?
        .trim()
        .strip_prefix('(')?
        .strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',')?;
    let (precision, scale) = (
        precision.trim().parse::<u8>().ok()?,
        scale.trim().parse::<u8>().ok()?,
    );
    ((1..=18).contains(&precision) && scale <= precision)
        .then_some(Number::Decimal { precision, scale })
}

/// Reads where event time is: `ts` or `payload.at ms`. Empty is `None`, the Kafka timestamp.
pub(super) fn parse_time_field(text: &str) -> Result<Option<TimeField>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let hint = "write FIELD, or FIELD and one of s, ms, us, rfc3339";
    let (path, unit) = split_word(text);
    let unit = match unit {
        None => TimeUnit::Auto,
        Some("s") => TimeUnit::Seconds,
        Some("ms") => TimeUnit::Millis,
        Some("us") => TimeUnit::Micros,
        Some("rfc3339") => TimeUnit::Rfc3339,
        Some(other) => return Err(format!("unknown unit \"{other}\"; {hint}")),
    };
    Ok(Some(TimeField {
        path: parse_path(path).map_err(|why| format!("{why}; {hint}"))?,
        unit,
    }))
}

/// Divides a list at its commas, except those in parentheses and back-quotes.
fn split_list(text: &str) -> Result<Vec<String>, String> {
    let mut items = vec![String::new()];
    let (mut depth, mut quoted) = (0_u32, false);
    for c in text.chars() {
        match c {
            '`' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => {
                depth = depth
                    .checked_sub(1)
                    .ok_or("a \")\" has no \"(\"; remove it")?
            }
            ',' if !quoted && depth == 0 => {
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        items.last_mut().expect("there is one").push(c);
    }
    if quoted || depth > 0 {
        return Err("a back-quote or parenthesis is not closed; close it".to_owned());
    }
    let items: Vec<String> = items.iter().map(|item| item.trim().to_owned()).collect();
    if items.iter().any(String::is_empty) {
        return Err("an item is empty; write names with commas between".to_owned());
    }
    Ok(items)
}

/// Divides `max(latency) as worst` into `max(latency)` and `worst`.
fn split_as(item: &str) -> Result<(&str, Option<&str>), String> {
    match item
        .rsplit_once(" as ")
        .or_else(|| item.rsplit_once(" AS "))
    {
        Some((what, name)) if !name.contains('`') => Ok((what.trim(), Some(name.trim()))),
        _ if item.ends_with(" as") => {
            Err(format!("\"{item}\" has no name after \"as\"; write one"))
        }
        _ => Ok((item, None)),
    }
}

/// Divides `price decimal(18,2)` into a path and what follows it. Blanks in back-quotes belong to
/// the path.
fn split_word(text: &str) -> (&str, Option<&str>) {
    let text = text.trim();
    let mut quoted = false;
    for (i, c) in text.char_indices() {
        match c {
            '`' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => return (&text[..i], Some(text[i..].trim())),
            _ => {}
        }
    }
    (text, None)
}

/// Reads the names of fields from the top level down: `payload.kind`. A name with blanks, dots or
/// other signs stands in back-quotes.
fn parse_path(text: &str) -> Result<Vec<String>, String> {
    let fail = || {
        format!("\"{text}\" is not a field; put names with blanks, dots or signs in back-quotes")
    };
    let mut path = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = if let Some(quoted) = rest.strip_prefix('`') {
            quoted.split_once('`').ok_or_else(fail)?
        } else {
            rest.split_at(rest.find('.').unwrap_or(rest.len()))
        };
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '@' | '$' | ':' | '/');
        if name.is_empty() || !(rest.starts_with('`') || name.chars().all(plain)) {
            return Err(fail());
        }
        path.push(name.to_owned());
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(path),
            None => return Err(fail()),
        }
    }
}

/// A column's name: the one that is given after `as`, else the default in lower case.
fn column_name(given: Option<&str>, default: &str) -> Result<String, String> {
    let name = given.map_or_else(|| default.to_lowercase(), str::to_owned);
    parse_name(&name).map_err(|_| {
        let name = name.escape_debug();
        format!(
            "\"{name}\" cannot be a column's name; write \"... as NAME\" with a-z, 0-9 and \"_\""
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn group_by_takes_paths_and_names() {
        let column = |p: &str, name: &str| Column {
            path: path(p),
            name: name.to_owned(),
        };
        let expect = vec![
            column("origin", "origin"),
            column("payload/Kind", "kind"),
            column("a.b/c d", "other"),
        ];
        assert_eq!(
            parse_group_by("origin, payload.Kind, `a.b`.`c d` as other"),
            Ok(expect)
        );
        for bad in [
            "", "a,", "a b", "a..b", ".a", "a.", "`a", "``", "a as", "a as B", "a(b)", "user-id",
        ] {
            assert!(parse_group_by(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn aggregates_take_functions_decimals_and_names() {
        let parsed = parse_aggregates(
            "count, sum(bytes), sum( price decimal(18,2) ), max(payload.latency) as worst",
        )
        .unwrap();
        let cents = Number::Decimal {
            precision: 18,
            scale: 2,
        };
        let expect = [
            (Function::Count, vec![], Number::Integer, "count"),
            (Function::Sum, path("bytes"), Number::Integer, "sum_bytes"),
            (Function::Sum, path("price"), cents, "sum_price"),
            (
                Function::Max,
                path("payload/latency"),
                Number::Integer,
                "worst",
            ),
        ];
        let expect = expect.map(|(function, path, number, name)| Aggregate {
            function,
            path,
            number,
            name: name.to_owned(),
        });
        assert_eq!(parsed, expect);
        for bad in [
            "",
            "count,",
            "median(a)",
            "sum()",
            "sum(a",
            "sum(a))",
            "sum(a decimal(19,2))",
            "sum(a decimal(2,3))",
            "sum(a b)",
            "count(a)",
            "sum(a) as",
            "SUM",
        ] {
            assert!(parse_aggregates(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn event_time_is_a_field_with_or_without_a_unit() {
        let field = |p: &str, unit| {
            Ok(Some(TimeField {
                path: path(p),
                unit,
            }))
        };
        assert_eq!(parse_time_field(""), Ok(None));
        assert_eq!(parse_time_field("ts"), field("ts", TimeUnit::Auto));
        assert_eq!(
            parse_time_field("`event time` ms"),
            field("event time", TimeUnit::Millis)
        );
        assert_eq!(
            parse_time_field("payload.at rfc3339"),
            field("payload/at", TimeUnit::Rfc3339)
        );
        let error = parse_time_field("ts ns").unwrap_err();
        assert_eq!(
            error,
            "unknown unit \"ns\"; write FIELD, or FIELD and one of s, ms, us, rfc3339"
        );
    }
}
