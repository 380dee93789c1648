//! librdkafka's errors in our words.

use super::context::Trouble;
use super::native;
use crate::connect::LogError;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::BTreeMap;

/// An error's code in words that say what to do, where there is something.
pub(super) fn words(code: RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => "no right to use the topic: the broker's ACLs refuse it".into(),
        RDKafkaErrorCode::GroupAuthorizationFailed => "no right to use the group: the broker's ACLs refuse it".into(),
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed => {
            "no right to use the transactional id: the broker's ACLs refuse it".into()
        }
        RDKafkaErrorCode::MessageSizeTooLarge => {
            "a record is larger than the topic's `max.message.bytes`: raise that, or make it smaller".into()
        }
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition => "the topic or partition is not there (any more)".into(),
        RDKafkaErrorCode::ClusterAuthorizationFailed => "no right to do that: the broker's ACLs refuse it".into(),
        RDKafkaErrorCode::AllBrokersDown => "no broker can be reached".into(),
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            "the broker refuses the credentials".into()
        }
        other => other.to_string(),
    }
}

/// The code of an error, where it has one.
pub(super) fn code_of(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

/// A client cannot be made of these properties.
pub(super) fn making(properties: &BTreeMap<String, String>, error: &KafkaError) -> LogError {
    let detail = match error {
        KafkaError::ClientConfig(_, said, name, _) if said.starts_with("No such configuration property") => {
            let near = property_names();
            let near = near.iter().min_by_key(|near| strsim::damerau_levenshtein(near, name));
            let near = near.filter(|near| strsim::damerau_levenshtein(near, name) <= name.len() / 3);
            let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            format!("librdkafka knows no property `{name}`{near}")
        }
        KafkaError::ClientConfig(_, said, name, _) => format!("the property `{name}`: {}", without(properties, said)),
        KafkaError::ClientCreation(said) => without(properties, said),
        other => without(properties, &other.to_string()),
    };
    LogError::Unavailable { detail }
}

/// A text of librdkafka's, which may repeat a secret.
fn without(properties: &BTreeMap<String, String>, said: &str) -> String {
    let secrets = properties.iter().filter(|(name, value)| {
        value.len() >= 4 && (name.contains("password") || name.contains("secret") || name.ends_with(".pem"))
    });
    secrets.fold(said.to_owned(), |said, (_, value)| {
        said.replace(value.as_str(), "(concealed)")
    })
}

/// Properties that have no value by default: librdkafka does not tell their names.
const WITHOUT_DEFAULT: [&str; 26] = [
    "bootstrap.servers",
    "client.dns.lookup",
    "client.rack",
    "group.instance.id",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
];

/// All properties that this build knows.
fn property_names() -> Vec<String> {
    let config = ClientConfig::new().create_native_config();
    let mut names: Vec<String> = config.map_or_else(|_| Vec::new(), |config| native::property_names(&config));
    names.extend(WITHOUT_DEFAULT.map(str::to_owned));
    names.sort();
    names
}

/// What was being done could not be done now.
pub(super) fn unavailable(trouble: &Trouble, doing: &str, error: &KafkaError) -> LogError {
    let said = code_of(error).map_or_else(|| error.to_string(), words);
    LogError::Unavailable {
        detail: format!("{doing}: {}", trouble.explain(&said)),
    }
}
