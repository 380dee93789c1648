//! Commits and fetched blocks as bytes on the socket.

use crate::connect::{Append, BlockBuilder, Commit, Fence, Fetched, GroupOffset};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize, Deserialize)]
struct CommitHead {
    appends: Vec<AppendHead>,
    offsets: Vec<GroupOffset>,
    fence: Option<Fence>,
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    topic: Arc<str>,
    partition: u32,
    blocks: Vec<u32>,
}

pub(super) fn encode_commit(commit: Commit) -> Vec<u8> {
    let mut head = CommitHead {
        appends: Vec::with_capacity(commit.appends.len()),
        offsets: commit.offsets,
        fence: commit.fence,
    };
    let mut blocks = Vec::new();
    for append in commit.appends {
        let finished = append.blocks.finish();
        head.appends.push(AppendHead {
            topic: append.topic,
            partition: append.partition,
            blocks: finished.iter().map(|block| block.bytes.len() as u32).collect(),
        });
        blocks.extend(finished);
    }
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let bytes = blocks.iter().map(|block| block.bytes.len()).sum::<usize>();
    let mut body = Vec::with_capacity(4 + head.len() + bytes);
    body.extend_from_slice(&(head.len() as u32).to_le_bytes());
    body.extend_from_slice(&head);
    blocks.iter().for_each(|block| body.extend_from_slice(&block.bytes));
    body
}

/// # Errors
/// What is wrong, where the bytes are not a commit; every block is checked.
pub(super) fn decode_commit(mut body: &[u8]) -> Result<Commit, String> {
    let short = || "the commit ends too early".to_string();
    let length = body.split_off(..4).ok_or_else(short)?;
    let length = u32::from_le_bytes(length.try_into().map_err(|_| short())?);
    let head = body.split_off(..length as usize).ok_or_else(short)?;
    let head: CommitHead = serde_json::from_slice(head).map_err(|error| format!("the commit's head: {error}"))?;
    let mut appends = Vec::with_capacity(head.appends.len());
    for append in head.appends {
        let mut blocks = BlockBuilder::new();
        for length in append.blocks {
            let block = body.split_off(..length as usize).ok_or_else(short)?;
            let place = || format!("a block for {}[{}]", append.topic, append.partition);
            blocks
                .push_block(block.to_vec())
                .map_err(|error| format!("{}: {error}", place()))?;
        }
        appends.push(Append {
            topic: append.topic,
            partition: append.partition,
            blocks,
        });
    }
    if !body.is_empty() {
        return Err(format!("{} bytes behind the commit", body.len()));
    }
    Ok(Commit {
        appends,
        offsets: head.offsets,
        fence: head.fence,
        ..Commit::default()
    })
}

pub(super) fn encode_fetched(fetched: Fetched) -> Vec<u8> {
    let mut body = Vec::with_capacity(fetched.block_bytes() + 64);
    for (base, bytes) in fetched.into_blocks() {
        body.extend_from_slice(&base.to_le_bytes());
        body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        body.extend_from_slice(&bytes);
    }
    body
}

/// # Errors
/// What is wrong, where the bytes are not blocks.
pub(super) fn decode_fetched(from: u64, mut body: Bytes) -> Result<Fetched, String> {
    let mut fetched = Fetched::nothing_at(from);
    while !body.is_empty() {
        let head = (body.len() >= 12)
            .then(|| body.split_to(12))
            .ok_or("the records end too early")?;
        let (base, length) = head.split_at(8);
        let base = u64::from_le_bytes(base.try_into().unwrap_or_default());
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
        let block = (body.len() >= length)
            .then(|| body.split_to(length))
            .ok_or("the records end too early")?;
        if base > fetched.next_offset() {
            return Err(format!("records from {} to {base} are missing", fetched.next_offset()));
        }
        fetched
            .push(base, block)
            .map_err(|error| format!("the block at offset {base}: {error}"))?;
    }
    Ok(fetched)
}
