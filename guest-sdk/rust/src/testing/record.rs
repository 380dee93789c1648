//! Records as a topic has them.

use serde_json::Value;

/// A record: what a topic has of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `None` where it has no key.
    pub key: Option<Vec<u8>>,
    /// `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names may repeat; a header may have no value.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Its place in its partition.
    pub offset: i64,
}

impl Record {
    /// A record whose value is JSON.
    pub fn json(value: Value) -> Record {
        Record::bytes(value.to_string())
    }

    /// A record with the value as it is given.
    pub fn bytes(value: impl Into<Vec<u8>>) -> Record {
        Record {
            value: Some(value.into()),
            ..Record::default()
        }
    }

    /// A record without a value.
    pub fn tombstone() -> Record {
        Record::default()
    }

    /// The record with a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Vec<u8>>) -> Record {
        self.key = Some(key.into());
        self
    }

    /// The record with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Record {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// The record at another time, in milliseconds since the epoch.
    #[must_use]
    pub fn at(mut self, timestamp: i64) -> Record {
        self.timestamp = timestamp;
        self
    }

    /// The value of the last header of that name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().rev().find(|(found, _)| found == name)?;
        value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The key, as text.
    pub fn key_text(&self) -> Option<String> {
        self.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned())
    }

    /// The value, as JSON; null for a tombstone.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json_value(&self) -> Value {
        match &self.value {
            None => Value::Null,
            Some(value) => match serde_json::from_slice(value) {
                Ok(value) => value,
                Err(error) => panic!("the value is not JSON: {error}: {:?}", String::from_utf8_lossy(value)),
            },
        }
    }
}

impl From<Value> for Record {
    fn from(value: Value) -> Record {
        Record::json(value)
    }
}
