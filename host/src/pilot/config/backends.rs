//! `backends`.

use super::{
    Backend,
    command::command,
    duration::limit,
    field::{Object, Seen},
    value::{name, seconds, some_text},
};

pub(super) fn backends(config: &mut Object<'_, '_>) -> Vec<Backend> {
    let mut seen = Seen::default();
    config.objects("backends", |keys| backend(keys, &mut seen))
}

fn backend(keys: &mut Object<'_, '_>, seen: &mut Seen<(String, Option<String>)>) -> Option<Backend> {
    let name = keys.required("name", name);
    let tag = keys.optional("tag", some_text);
    let poll = keys.required("poll", seconds);
    let on_change = keys.required("onChange", command);
    let limit = keys.optional("timeout", |field| limit(field, "onChange"));
    if let Some(name) = &name {
        keys.claim(seen, "name", (name.clone(), tag.clone()), format_args!("{name:?} with the same tag"));
    }
    Some(Backend { name: name?, tag, poll: poll?, on_change: on_change?, limit: limit.or(poll)? })
}
