//! librdkafka's errors in our words.

use super::context::Trouble;
use crate::connect::LogError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

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

/// What was being done could not be done now.
pub(super) fn unavailable(trouble: &Trouble, doing: &str, error: &KafkaError) -> LogError {
    let said = code_of(error).map_or_else(|| error.to_string(), words);
    LogError::Unavailable {
        detail: format!("{doing}: {}", trouble.explain(&said)),
    }
}
