//! The problem document in the API's description.

use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::problem::{Code, Document};

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
