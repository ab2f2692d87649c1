//! golibx._core.tune(): what may change while a run goes on (core/tunables.zig), by the names that
//! it has in golib.toml; and how a run's options set it.
//!
//! All is done with the interpreter's lock, and without running code of the program's between the
//! look at the values that there are and the change: of two threads that change something, one
//! comes first, and the other finds what that one has set.
const std = @import("std");
const tunables_mod = @import("../../core/tunables.zig");
const sysmon = @import("../../serial/sysmon.zig");
const native = @import("../../parallel/lane.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");

pub const Change = tunables_mod.Change;
const keys = tunables_mod.keys;
const current = &tunables_mod.current;
const lane = &host.the_lane;

/// Those of a run's options that are tunables. Their ranges are the configuration's business:
/// golibx.testing goes beyond them. Null with an exception set.
pub fn read(options: *py.Object) ?Change {
    var change: Change = .{};
    for (keys, &change.wanted) |key, *value| {
        const given = py.PyDict_GetItemString(options, key.option) orelse continue;
        const number = py.PyLong_AsLongLong(given);
        if (number == -1 and py.PyErr_Occurred() != null) return null;
        value.* = std.math.cast(u64, number) orelse {
            _ = py.raise(py.exc.valueError(), "option {s} cannot be {d}", .{ key.option, number });
            return null;
        };
    }
    return change;
}

/// Also has the threads that sleep by the old values look again. With the interpreter's lock.
pub fn apply(change: *const Change, before: ?*Change) void {
    if (!change.apply(current, before)) return;
    // Between two runs of one kind sysmon is at rest, and asleep: see serial/resting.zig.
    if (lane.live or lane.rests) sysmon.lookAgain(lane);
    if (native.running()) native.sysmon.wake();
}

/// tunables()
pub fn tunables() ?*py.Object {
    const dict = py.PyDict_New() orelse return null;
    for (keys, 0..) |key, i| {
        if (py.setInt(dict, key.path, current.at(i).get())) continue;
        py.decref(dict);
        return null;
    }
    return dict;
}

/// tune(changes, /)
pub fn tune(changes: *py.Object) ?*py.Object {
    const change = readChange(changes) orelse return null;
    if (!lane.live and !native.running()) return py.raise(
        py.exc.runtimeError(),
        "no runtime is running: a run begins with what its configuration says",
        .{},
    );
    if (change.refusal(current)) |refusal| return raiseRefusal(&change, refusal);
    var before: Change = .{};
    apply(&change, &before);
    const replaced = py.PyDict_New() orelse return null;
    for (keys, before.wanted) |key, old| {
        if (py.setInt(replaced, key.path, old orelse continue)) continue;
        py.decref(replaced);
        return null;
    }
    return replaced;
}

/// By the keys' names. Null with an exception set.
fn readChange(changes: *py.Object) ?Change {
    if (!py.isDict(changes)) {
        const text = "tune() takes a dict of ints by key, not %R";
        _ = py.PyErr_Format(py.exc.typeError(), text, changes);
        return null;
    }
    var change: Change = .{};
    var at: py.Ssize = 0;
    var name: ?*py.Object = null;
    var value: ?*py.Object = null;
    while (py.PyDict_Next(changes, &at, &name, &value) != 0) {
        const key = findKey(name.?) orelse return null;
        change.wanted[key] = readValue(key, value.?) orelse return null;
    }
    return change;
}

fn findKey(name: *py.Object) ?usize {
    var len: py.Ssize = 0;
    if (py.PyUnicode_AsUTF8AndSize(name, &len)) |text| {
        if (tunables_mod.find(text[0..@intCast(len)])) |key| return key;
    } else py.PyErr_Clear();
    _ = py.PyErr_Format(
        py.exc.valueError(),
        "%R cannot change while a run goes on; these can: " ++ comptime allPaths(),
        name,
    );
    return null;
}

fn allPaths() [:0]const u8 {
    var paths: [:0]const u8 = "";
    for (keys, 0..) |key, i| paths = paths ++ (if (i == 0) "" else ", ") ++ key.path;
    return paths;
}

fn readValue(key: usize, value: *py.Object) ?u64 {
    const is_number = py.isInt(value) and value != py.boolean(true) and value != py.boolean(false);
    if (is_number) {
        const number = py.PyLong_AsUnsignedLongLong(value);
        const fits = number != std.math.maxInt(c_ulonglong) or py.PyErr_Occurred() == null;
        // What 64 bits cannot hold is in no range.
        if (!fits) py.PyErr_Clear();
        if (fits) return number;
    }
    const out_of_range = "%s cannot be %R%s: allowed are %s";
    const path = keys[key].path.ptr;
    const unit = keys[key].unit.ptr;
    const allowed = keys[key].allowed.ptr;
    _ = if (is_number)
        py.PyErr_Format(py.exc.valueError(), out_of_range, path, value, unit, allowed)
    else
        py.PyErr_Format(py.exc.typeError(), "%s cannot be %R: an int, of %s", path, value, allowed);
    return null;
}

fn raiseRefusal(change: *const Change, refusal: Change.Refusal) ?*py.Object {
    const key = keys[refusal.key];
    const limit = refusal.limit orelse return py.raise(
        py.exc.valueError(),
        "{s} cannot be {d}{s}: allowed are {s}",
        .{ key.path, change.wanted[refusal.key].?, key.unit, key.allowed },
    );
    const value = change.wanted[refusal.key] orelse current.at(refusal.key).get();
    const most = change.wanted[limit] orelse current.at(limit).get();
    if (change.wanted[refusal.key] == null) return py.raise(
        py.exc.valueError(),
        "{s} cannot be {d}{s}: less than {s}, which is {d}{s}",
        .{ keys[limit].path, most, key.unit, key.path, value, key.unit },
    );
    return py.raise(
        py.exc.valueError(),
        "{s} cannot be {d}{s}: more than {s}, which is {d}{s}",
        .{ key.path, value, key.unit, keys[limit].path, most, key.unit },
    );
}
