//! Pod, object metadata and label selectors.

use super::spec::POD_SPEC;
use crate::schema::Kind::{Anything, Bool, Int64, List, Map, Object, Pointer, Text, Time};
use crate::schema::Shape;

pub(crate) static LABEL_SELECTOR: Shape = Shape {
    name: "LabelSelector",
    fields: &[("matchExpressions", List(&Object(&LABEL_SELECTOR_REQUIREMENT))), ("matchLabels", Map(&Text))],
};

pub(crate) static LABEL_SELECTOR_REQUIREMENT: Shape =
    Shape { name: "LabelSelectorRequirement", fields: &[("key", Text), ("operator", Text), ("values", List(&Text))] };

pub(crate) static MANAGED_FIELDS_ENTRY: Shape = Shape {
    name: "ManagedFieldsEntry",
    fields: &[
        ("apiVersion", Text),
        ("fieldsType", Text),
        ("fieldsV1", Anything),
        ("manager", Text),
        ("operation", Text),
        ("subresource", Text),
        ("time", Time),
    ],
};

pub(crate) static OBJECT_META: Shape = Shape {
    name: "ObjectMeta",
    fields: &[
        ("annotations", Map(&Text)),
        ("creationTimestamp", Time),
        ("deletionGracePeriodSeconds", Pointer(&Int64)),
        ("deletionTimestamp", Time),
        ("finalizers", List(&Text)),
        ("generateName", Text),
        ("generation", Int64),
        ("labels", Map(&Text)),
        ("managedFields", List(&Object(&MANAGED_FIELDS_ENTRY))),
        ("name", Text),
        ("namespace", Text),
        ("ownerReferences", List(&Object(&OWNER_REFERENCE))),
        ("resourceVersion", Text),
        ("selfLink", Text),
        ("uid", Text),
    ],
};

pub(crate) static OWNER_REFERENCE: Shape = Shape {
    name: "OwnerReference",
    fields: &[
        ("apiVersion", Text),
        ("blockOwnerDeletion", Pointer(&Bool)),
        ("controller", Pointer(&Bool)),
        ("kind", Text),
        ("name", Text),
        ("uid", Text),
    ],
};

pub(crate) static POD: Shape = Shape {
    name: "Pod",
    fields: &[
        ("apiVersion", Text),
        ("kind", Text),
        ("metadata", Object(&OBJECT_META)),
        ("spec", Object(&POD_SPEC)),
        ("status", Anything),
    ],
};
