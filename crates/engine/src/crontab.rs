//! Five-field crontab expressions, read as crontab(5) reads them and rewritten for the `cron` crate, whose seconds come
//! first and whose weeks begin with Sunday as 1. What programs disagree about is refused, not guessed.
//! Invariant: every number is within its field's range, so no expression costs more than its length to read.
use std::ops::RangeInclusive;

/// Longer expressions are no schedules anybody meant.
const LONGEST: usize = 200;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Why an expression, or its time zone, is not taken.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CronError {
    /// Not five fields.
    #[error("`{expression}` has {found} fields; give five: minute, hour, day of month, month, day of week")]
    Fields {
        /// What was given.
        expression: String,
        /// How many fields it has.
        found: usize,
    },
    /// Absurdly long.
    #[error("the cron expression has more than 200 characters")]
    TooLong,
    /// A field that cannot be read.
    #[error("the {field} `{text}` {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// Its text.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Both days restricted: crontab fires when either matches, other programs when both do.
    #[error(
        "`{expression}` restricts both day of month and day of week, which programs read differently; leave one of them `*`, or make two schedules"
    )]
    TwoDays {
        /// What was given.
        expression: String,
    },
    /// A date that does not exist.
    #[error("`{expression}` never fires: there is no such date")]
    Never {
        /// What was given.
        expression: String,
    },
    /// No such time zone.
    #[error("there is no time zone `{name}`; give an IANA name such as Europe/Zurich, or UTC")]
    UnknownTimezone {
        /// What was given.
        name: String,
    },
}

struct Field {
    name: &'static str,
    range: RangeInclusive<u8>,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", range: 0..=59, names: &[] },
    Field { name: "hour", range: 0..=23, names: &[] },
    Field { name: "day of month", range: 1..=31, names: &[] },
    Field { name: "month", range: 1..=12, names: &MONTHS },
    Field { name: "day of week", range: 0..=7, names: &WEEKDAYS },
];

/// Rewrites `expression` for the `cron` crate.
pub(crate) fn translate(expression: &str) -> Result<String, CronError> {
    if expression.len() > LONGEST {
        return Err(CronError::TooLong);
    }
    let texts: Vec<&str> = expression.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = texts[..] else {
        return Err(CronError::Fields { expression: expression.to_owned(), found: texts.len() });
    };
    if day != "*" && weekday != "*" {
        return Err(CronError::TwoDays { expression: expression.to_owned() });
    }
    let [minute, hour, day, month] =
        [(0, minute), (1, hour), (2, day), (3, month)].map(|(no, text)| FIELDS[no].read(text).map(|set| numbers(&set)));
    let weekdays = FIELDS[4].read(weekday)?;
    Ok(format!("0 {} {} {} {} {}", minute?, hour?, day?, month?, names(&weekdays)))
}

/// `None` stands for every value.
type Set = Option<Vec<u8>>;

fn numbers(set: &Set) -> String {
    let join = |values: &Vec<u8>| values.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
    set.as_ref().map_or_else(|| "*".to_owned(), join)
}

/// Weekdays by name: their numbers differ between crontab and the crate. Sunday is both 0 and 7.
fn names(set: &Set) -> String {
    let Some(days) = set else { return "*".to_owned() };
    let mut days: Vec<usize> = days.iter().map(|day| usize::from(day % 7)).collect();
    days.sort_unstable();
    days.dedup();
    days.iter().map(|day| WEEKDAYS[*day]).collect::<Vec<_>>().join(",")
}

impl Field {
    fn read(&self, text: &str) -> Result<Set, CronError> {
        if text == "*" {
            return Ok(None);
        }
        let mut values = Vec::new();
        for part in text.split(',') {
            values.extend(self.part(part).map_err(|problem| self.error(text, problem))?);
        }
        values.sort_unstable();
        values.dedup();
        Ok(Some(values))
    }

    fn part(&self, part: &str) -> Result<Vec<u8>, String> {
        let (base, step) = match part.split_once('/') {
            Some((base, step)) => (base, Some(self.step(step)?)),
            None => (part, None),
        };
        let (from, to) = match base.split_once('-') {
            Some((from, to)) => (self.value(from)?, self.value(to)?),
            // Sunday once, or a step over the week would begin its second round on it.
            None if base == "*" => (*self.range.start(), (*self.range.end()).min(if self.is_weekday() { 6 } else { 59 })),
            None if step.is_some() => {
                return Err(format!(
                    "has a step after one value, which programs read differently; write {base}-{}/…",
                    self.range.end()
                ));
            }
            None => (self.value(base)?, self.value(base)?),
        };
        if from > to {
            return Err(format!("has a range that ends before it begins: {base}"));
        }
        Ok((from..=to).step_by(usize::from(step.unwrap_or(1))).collect())
    }

    fn step(&self, text: &str) -> Result<u8, String> {
        let step = digits(text).filter(|step| (1..=*self.range.end()).contains(step));
        step.ok_or_else(|| format!("has the step `{text}`, which is not a number from 1 to {}", self.range.end()))
    }

    fn value(&self, text: &str) -> Result<u8, String> {
        let first = if self.is_weekday() { 0 } else { 1 };
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = named.and_then(|no| u8::try_from(no + first).ok()).or_else(|| digits(text));
        value.filter(|value| self.range.contains(value)).ok_or_else(|| {
            let or_name = self.names.first().map_or(String::new(), |name| format!(" or a name such as {name}"));
            format!("has `{text}`, which is not a number from {} to {}{or_name}", self.range.start(), self.range.end())
        })
    }

    fn is_weekday(&self) -> bool {
        self.names.len() == WEEKDAYS.len()
    }

    fn error(&self, text: &str, problem: String) -> CronError {
        CronError::Field { field: self.name, text: text.to_owned(), problem }
    }
}

/// A plain number; `parse` alone would take `+5`.
fn digits(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(expression: &str) -> String {
        translate(expression).unwrap_err().to_string()
    }

    #[test]
    fn weekdays_are_crontabs_with_sunday_as_0_and_7() {
        assert_eq!(translate("0 2 * * 0").unwrap(), "0 0 2 * * sun");
        assert_eq!(translate("0 2 * * 7").unwrap(), "0 0 2 * * sun");
        assert_eq!(translate("0 2 * * 1-5").unwrap(), "0 0 2 * * mon,tue,wed,thu,fri");
        assert_eq!(translate("0 2 * * 5-7").unwrap(), "0 0 2 * * sun,fri,sat");
        assert_eq!(translate("0 2 * * Mon,wed").unwrap(), "0 0 2 * * mon,wed");
        assert_eq!(translate("0 2 * * */2").unwrap(), "0 0 2 * * sun,tue,thu,sat");
    }

    #[test]
    fn lists_ranges_steps_and_month_names_are_spelled_out() {
        assert_eq!(translate("*/20 8-10 1,15 jan-mar *").unwrap(), "0 0,20,40 8,9,10 1,15 1,2,3 *");
        assert_eq!(translate("5-20/5 * * * *").unwrap(), "0 5,10,15,20 * * * *");
    }

    #[test]
    fn what_programs_read_differently_is_refused() {
        assert!(refusal("0 2 13 * 5").contains("restricts both day of month and day of week"));
        assert!(refusal("5/15 * * * *").contains("has a step after one value"));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_do() {
        assert_eq!(refusal("0 2 * *"), "`0 2 * *` has 4 fields; give five: minute, hour, day of month, month, day of week");
        assert_eq!(refusal("60 * * * *"), "the minute `60` has `60`, which is not a number from 0 to 59");
        assert!(refusal("* * * foo *").contains("or a name such as jan"));
        assert!(refusal("1--100000000 * * * *").contains("not a number"));
        assert!(refusal("*/0 * * * *").contains("step `0`"));
        assert!(refusal("+5 * * * *").contains("not a number"));
        assert!(refusal("30-10 * * * *").contains("ends before it begins"));
        assert!(refusal("0 2 * * fri-mon").contains("ends before it begins"));
        assert!(refusal("0 0 L * *").contains("not a number"));
        assert_eq!(translate(&"1,".repeat(200)), Err(CronError::TooLong));
    }
}
