//! `backends[].template`: the file that is rendered before `onChange` runs.

use std::path::PathBuf;

use super::{
    BackendTemplate,
    field::{Field, Object, UniqueKeys},
    read::ReadContext,
};

/// Files that backends render, which must be unique.
pub(super) type Destinations = UniqueKeys<PathBuf>;

pub(super) fn template(
    field: Field<'_, '_>,
    context: &ReadContext<'_>,
    destinations: &mut Destinations,
) -> Option<BackendTemplate> {
    field.object(|keys| {
        let source = keys.required("source", path);
        let destination = keys.required("destination", path);
        let mode = keys.optional("mode", mode);
        if let Some(source) = &source
            && let Err(reason) = (context.template)(source)
        {
            keys.error("source", format_args!("cannot use the template: {reason}"));
        }
        if let Some(destination) = &destination {
            check_destination(keys, source.as_ref(), destination, destinations);
        }
        Some(BackendTemplate { source: source?, destination: destination?, mode })
    })
}

fn check_destination(
    keys: &mut Object<'_, '_>,
    source: Option<&PathBuf>,
    destination: &PathBuf,
    destinations: &mut Destinations,
) {
    if source == Some(destination) {
        keys.error("destination", "same file as source, expected another file");
    }
    keys.require_unique(destinations, "destination", destination.clone(), format_args!("{}", destination.display()));
}

fn path(field: Field<'_, '_>) -> Option<PathBuf> {
    let path = field.as_text().filter(|path| !path.is_empty() && !path.ends_with('/') && !path.contains('\0'));
    let path = path.map(PathBuf::from);
    field.require(path, "a path of a file")
}

/// Reads permissions in the octal notation of `chmod`.
fn mode(field: Field<'_, '_>) -> Option<u32> {
    let is_octal = |text: &&str| (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = field.as_text().filter(is_octal).and_then(|text| u32::from_str_radix(text, 8).ok());
    field.require(mode.filter(|mode| *mode <= 0o777), "permissions in octal, such as \"0640\"")
}
