//! `backends`: the services to watch.

use super::{
    Backend,
    command::command,
    duration::timeout,
    field::{Object, UniqueKeys},
    read::ReadContext,
    services::Case,
    template::{Destinations, template},
    value::{name, non_empty_text, seconds},
};

pub(super) fn backends(config: &mut Object<'_, '_>, context: &ReadContext<'_>) -> Vec<Backend> {
    let (mut unique, mut destinations, case) = (UniqueKeys::default(), Destinations::default(), Case::of(config));
    config.objects("backends", |keys| backend(keys, context, (&mut unique, case), &mut destinations))
}

fn backend(
    keys: &mut Object<'_, '_>,
    context: &ReadContext<'_>,
    (unique, case): (&mut UniqueKeys<(String, Option<String>)>, Case),
    destinations: &mut Destinations,
) -> Option<Backend> {
    let name = keys.required("name", name);
    let tag = keys.optional("tag", non_empty_text);
    let poll = keys.required("poll", seconds);
    let on_change = keys.required("onChange", |field| command(field, context));
    let limit = keys.optional("timeout", |field| timeout(field, "onChange"));
    let template = keys.optional("template", |field| template(field, context, destinations));
    if let Some(name) = &name {
        let identity = (case.identity(name), tag.as_deref().map(|tag| case.identity(tag)));
        keys.require_unique(unique, "name", identity, format_args!("{name:?} with the same tag"));
    }
    Some(Backend { name: name?, tag, poll: poll?, on_change: on_change?, limit: limit.or(poll)?, template })
}
