//! What a task lends to an instance for the time of a call.

use crate::table::Table;

/// The stores of one stage and task, in the order of the signature. A call sees what committed calls wrote and what it
/// wrote itself; whoever lends them undoes the writes of a call that fails.
///
/// Tables have been held against the store's fields before they come here, and the store's number against the signature.
/// What they return is built by the host: it is as long as it should be and fits the store's fields.
pub trait Stores: Send {
    /// Which keys are not in the store (one mark a key; empty: all are there), and a row for each key.
    ///
    /// # Errors
    /// What ends the guest's call; [`StoresError::Size`] as soon as the rows have more than `bytes_max` bytes, so that a
    /// large row that is asked for often is not copied as often.
    fn get(&mut self, store: usize, keys: &Table, bytes_max: usize) -> Result<(Vec<u8>, Table), StoresError>;

    /// Row r of `values` becomes the value of row r of `keys`.
    ///
    /// # Errors
    /// What ends the guest's call.
    fn put(&mut self, store: usize, keys: &Table, values: &Table) -> Result<(), StoresError>;

    /// Keys that are not there are passed over.
    ///
    /// # Errors
    /// What ends the guest's call.
    fn delete(&mut self, store: usize, keys: &Table) -> Result<(), StoresError>;

    /// Rows of an ordered store whose key begins with the cells of `prefix` (one row with the first columns of the key, or
    /// with none), behind the key `after` (one row, or none), at most `limit`. It stops earlier where keys and values would
    /// have more than `bytes_max` bytes.
    ///
    /// # Errors
    /// What ends the guest's call; [`StoresError::Size`] where the first row alone has more than `bytes_max` bytes.
    fn scan(
        &mut self,
        store: usize,
        prefix: &Table,
        after: &Table,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Scanned, StoresError>;
}

/// Rows of a store in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Their keys.
    pub keys: Table,
    /// Their values.
    pub values: Table,
    /// Whether the last row that fits is among them.
    pub complete: bool,
}

/// Why a call of a store did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoresError {
    /// The guest's row breaks a bound: the call fails as with a trap, and the row at fault is found.
    #[error("{0}")]
    Row(String),
    /// What was asked for has more than the bytes that may be read.
    #[error("the rows have more bytes than may be read")]
    Size,
    /// The local store cannot be read: the call is not to blame, the task waits and tries again.
    #[error("the local store cannot be read: {0}")]
    Unavailable(String),
}
