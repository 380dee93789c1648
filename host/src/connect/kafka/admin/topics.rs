//! Topics: made, described, dropped.

use super::{Admin, AskError, Options, Refusal, listed, result_code};
use crate::connect::LogError;
use crate::connect::kafka::places::{self, c_name};
use rdkafka::bindings as c;
use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::ptr;

/// A topic that is to be made.
pub(in crate::connect::kafka) struct NewTopic<'t> {
    pub name: &'t str,
    pub partitions: u32,
    /// As the brokers have it by default where none.
    pub replication: Option<u16>,
    pub settings: BTreeMap<String, String>,
}

/// What is told of a topic beside its partitions.
#[derive(Debug, Default)]
pub(in crate::connect::kafka) struct AboutTopic {
    /// One that was deleted and made again has another; none where brokers give none.
    pub id: Option<String>,
    /// Kafka's names of operations; none where the broker does not say.
    pub rights: Option<Vec<String>>,
}

/// Settings of a topic that are its own, by their names.
pub(in crate::connect::kafka) type Settings = BTreeMap<String, String>;

impl Admin<'_> {
    /// Makes a topic.
    pub fn create_topic(self, topic: &NewTopic<'_>) -> Result<(), AskError> {
        let name = c_name(topic.name)?;
        let replication = topic.replication.map_or(-1, i32::from);
        let mut settings = Vec::new();
        for (setting, value) in &topic.settings {
            settings.push((setting_text(topic.name, setting)?, setting_text(topic.name, value)?));
        }
        let options = Options::new(self.client(), c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS);
        let mut said = [0 as c_char; 256];
        // SAFETY: names and values are copied; the topic is given back once, and copied by the call before.
        let answer = unsafe {
            let partitions = topic.partitions as i32;
            let mut new =
                c::rd_kafka_NewTopic_new(name.as_ptr(), partitions, replication, said.as_mut_ptr(), said.len());
            if new.is_null() {
                return Err(LogError::InvalidTopic {
                    topic: topic.name.to_owned(),
                    reason: places::text(said.as_ptr()),
                }
                .into());
            }
            for (setting, value) in &settings {
                c::rd_kafka_NewTopic_set_config(new, setting.as_ptr(), value.as_ptr());
            }
            let answer = self.ask(|client, queue| {
                c::rd_kafka_CreateTopics(client, &mut new, 1, options.0, queue);
            });
            c::rd_kafka_NewTopic_destroy(new);
            answer?
        };
        // SAFETY: the results live as long as the answer.
        unsafe {
            let result = c::rd_kafka_event_CreateTopics_result(answer.0);
            outcome(listed(|count| c::rd_kafka_CreateTopics_result_topics(result, count)))
        }
    }

    /// Drops a topic.
    pub fn delete_topic(self, topic: &str) -> Result<(), AskError> {
        let name = c_name(topic)?;
        let options = Options::new(self.client(), c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETETOPICS);
        // SAFETY: as above.
        unsafe {
            let mut gone = c::rd_kafka_DeleteTopic_new(name.as_ptr());
            let answer = self.ask(|client, queue| {
                c::rd_kafka_DeleteTopics(client, &mut gone, 1, options.0, queue);
            });
            c::rd_kafka_DeleteTopic_destroy(gone);
            let answer = answer?;
            let result = c::rd_kafka_event_DeleteTopics_result(answer.0);
            outcome(listed(|count| c::rd_kafka_DeleteTopics_result_topics(result, count)))
        }
    }

    /// The settings that topics have for themselves, by topic: what a broker has by default is left out. Topics that may
    /// not be asked are left out too.
    pub fn topic_settings(self, topics: &[&str]) -> Result<BTreeMap<String, Settings>, AskError> {
        if topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        let names: Vec<CString> = topics.iter().map(|topic| c_name(topic)).collect::<Result<_, _>>()?;
        let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
        let options = Options::new(self.client(), operation);
        let kind = c::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        // SAFETY: names are copied; what is asked for is given back once, and copied by the call before.
        let answer = unsafe {
            let resource = |name: &CString| c::rd_kafka_ConfigResource_new(kind, name.as_ptr());
            let mut asked: Vec<_> = names.iter().map(resource).collect();
            let answer = self.ask(|client, queue| {
                c::rd_kafka_DescribeConfigs(client, asked.as_mut_ptr(), asked.len(), options.0, queue);
            });
            c::rd_kafka_ConfigResource_destroy_array(asked.as_mut_ptr(), asked.len());
            answer?
        };
        let mut settings = BTreeMap::new();
        // SAFETY: the results live as long as the answer.
        unsafe {
            let result = c::rd_kafka_event_DescribeConfigs_result(answer.0);
            for &resource in listed(|count| c::rd_kafka_DescribeConfigs_result_resources(result, count)) {
                if result_code(c::rd_kafka_ConfigResource_error(resource)).is_ok() {
                    let name = places::text(c::rd_kafka_ConfigResource_name(resource));
                    settings.insert(name, own_settings(resource));
                }
            }
        }
        Ok(settings)
    }

    /// Which topic it is, and what whoever asks may do with it.
    pub fn about_topic(self, topic: &str) -> Result<AboutTopic, AskError> {
        let name = c_name(topic)?;
        let operation = c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Options::new(self.client(), operation).with_rights();
        // SAFETY: names are copied; what is asked for is given back once; the results live as long as the answer.
        unsafe {
            let mut names = [name.as_ptr()];
            let asked = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            let answer = self.ask(|client, queue| c::rd_kafka_DescribeTopics(client, asked, options.0, queue));
            c::rd_kafka_TopicCollection_destroy(asked);
            let answer = answer?;
            let result = c::rd_kafka_event_DescribeTopics_result(answer.0);
            let Some(&described) = listed(|count| c::rd_kafka_DescribeTopics_result_topics(result, count)).first()
            else {
                return Ok(AboutTopic::default());
            };
            if let Some(refusal) = Refusal::read(c::rd_kafka_TopicDescription_error(described)) {
                return Err(refusal.into());
            }
            let mut count = 0;
            let operations = c::rd_kafka_TopicDescription_authorized_operations(described, ptr::from_mut(&mut count));
            let rights = (!operations.is_null()).then(|| {
                let operations = std::slice::from_raw_parts(operations, count);
                let name = |&operation| places::text(c::rd_kafka_AclOperation_name(operation));
                operations.iter().map(name).collect()
            });
            let id = c::rd_kafka_TopicDescription_topic_id(described);
            Ok(AboutTopic {
                id: topic_id(id),
                rights,
            })
        }
    }
}

/// # Safety
/// An id that lives, or null.
unsafe fn topic_id(id: *const c::rd_kafka_Uuid_t) -> Option<String> {
    if id.is_null() {
        return None;
    }
    // SAFETY: see above.
    let (most, least) = unsafe {
        (
            c::rd_kafka_Uuid_most_significant_bits(id) as u64,
            c::rd_kafka_Uuid_least_significant_bits(id) as u64,
        )
    };
    // Brokers before 2.8 have none.
    (most != 0 || least != 0).then(|| format!("{most:016x}{least:016x}"))
}

fn setting_text(topic: &str, text: &str) -> Result<CString, LogError> {
    CString::new(text).map_err(|_| LogError::InvalidTopic {
        topic: topic.to_owned(),
        reason: format!("a setting has no NUL: {text:?}"),
    })
}

/// # Safety
/// Results that live.
unsafe fn outcome(results: &[*const c::rd_kafka_topic_result_t]) -> Result<(), AskError> {
    let Some(&result) = results.first() else {
        return Ok(());
    };
    // SAFETY: see above.
    unsafe {
        result_code(c::rd_kafka_topic_result_error(result)).map_err(|code| {
            let said = places::text(c::rd_kafka_topic_result_error_string(result));
            Refusal { code, said }.into()
        })
    }
}

/// # Safety
/// A result that lives.
unsafe fn own_settings(resource: *const c::rd_kafka_ConfigResource_t) -> Settings {
    let of_topic = c::rd_kafka_ConfigSource_t::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG;
    // SAFETY: see above.
    unsafe {
        let entries = listed(|count| c::rd_kafka_ConfigResource_configs(resource, count));
        let own = entries
            .iter()
            .filter(|&&entry| c::rd_kafka_ConfigEntry_source(entry) == of_topic);
        let text = |&entry: &*const c::rd_kafka_ConfigEntry_t| {
            let name = places::text(c::rd_kafka_ConfigEntry_name(entry));
            (name, places::text(c::rd_kafka_ConfigEntry_value(entry)))
        };
        own.map(text).collect()
    }
}
