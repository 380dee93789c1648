//! What helps to change a derived signature.

use crate::millstream::plugin::schema::{Branch, Field, FieldType, Input, MappedField, Place, Signature, Store};

impl Signature {
    /// The input of that name.
    ///
    /// # Panics
    /// If there is none: the names are those in the plugin's own code.
    pub fn input_mut(&mut self, name: &str) -> &mut Input {
        match self.inputs.iter_mut().find(|input| input.name == name) {
            Some(input) => input,
            None => panic!("there is no input {name:?}"),
        }
    }

    /// The branch of that name.
    ///
    /// # Panics
    /// If there is none: the names are those in the plugin's own code.
    pub fn branch_mut(&mut self, name: &str) -> &mut Branch {
        match self.branches.iter_mut().find(|branch| branch.name == name) {
            Some(branch) => branch,
            None => panic!("there is no branch {name:?}"),
        }
    }

    /// The store of that name.
    ///
    /// # Panics
    /// If there is none: the names are those in the plugin's own code.
    pub fn store_mut(&mut self, name: &str) -> &mut Store {
        match self.stores.iter_mut().find(|store| store.name == name) {
            Some(store) => store,
            None => panic!("there is no store {name:?}"),
        }
    }
}

impl Input {
    /// The field of that name.
    ///
    /// # Panics
    /// If there is none: the names are those in the plugin's own code.
    pub fn field_mut(&mut self, name: &str) -> &mut MappedField {
        find(&mut self.fields, name)
    }
}

impl Branch {
    /// The field of that name.
    ///
    /// # Panics
    /// If there is none: the names are those in the plugin's own code.
    pub fn field_mut(&mut self, name: &str) -> &mut MappedField {
        find(&mut self.fields, name)
    }
}

impl MappedField {
    /// A field and its place.
    pub fn new(name: impl Into<String>, field_type: FieldType, optional: bool, place: Place) -> MappedField {
        MappedField {
            field: Field {
                name: name.into(),
                type_: field_type,
                optional,
            },
            place,
        }
    }
}

fn find<'f>(fields: &'f mut [MappedField], name: &str) -> &'f mut MappedField {
    match fields.iter_mut().find(|mapped| mapped.field.name == name) {
        Some(mapped) => mapped,
        None => panic!("there is no field {name:?}"),
    }
}
