//! What the API's description says beside its endpoints: ids in JSON, the problem document.

use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Number, PartialSchema, ToSchema};

use super::problem::{Code, Document};
use crate::model::id::MAX_ID_BYTES;

/// An id in a JSON body.
pub(super) struct IdInput;

impl ToSchema for IdInput {}

impl PartialSchema for IdInput {
    fn schema() -> RefOr<Schema> {
        let text = format!(
            "An id: text of 1 to {MAX_ID_BYTES} bytes in UTF-8 without control characters, neither `.` \
             nor `..`. A 64-bit integer is the id of its decimal digits."
        );
        id([Type::String, Type::Integer])
            .min_length(Some(1))
            .description(Some(text))
            .into()
    }
}

/// A user's id in a JSON body, or what is said where there is none.
pub(super) fn uid_input() -> impl Into<RefOr<Schema>> {
    id([Type::String, Type::Integer, Type::Null])
        .description(Some("The user, as any id; null and empty are no user."))
}

/// Every character has a byte at least.
fn id(types: impl IntoIterator<Item = Type>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter(types))
        .max_length(Some(MAX_ID_BYTES))
        .minimum(Some(Number::Int(isize::MIN)))
        .maximum(Some(Number::UInt(usize::MAX)))
}

/// Adds the problem document, with every code, to each operation of the description.
pub(super) fn problems(description: &mut OpenApi) {
    let codes: Vec<_> = Code::ALL
        .into_iter()
        .map(|code| format!("- `{}` ({})", code.urn(), code.status().as_u16()))
        .collect();
    let text = format!(
        "A problem document. `type` is one of:\n\n{}",
        codes.join("\n")
    );
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let response = ResponseBuilder::new()
        .description(text)
        .content("application/problem+json", content)
        .build();
    let components = description.components.get_or_insert_default();
    components
        .responses
        .insert("Problem".into(), RefOr::T(response));
    let mut schemas = Vec::new();
    Document::schemas(&mut schemas);
    schemas.push((Document::name().into_owned(), Document::schema()));
    components.schemas.extend(schemas);
    for item in description.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ];
        for operation in operations.into_iter().flatten() {
            let problem = RefOr::Ref(Ref::from_response_name("Problem"));
            operation
                .responses
                .responses
                .insert("default".into(), problem);
        }
    }
}
