//! Functions of the standard library's C modules that would block a thread: in goroutines they
//! park. A patch is for speed only. What is not patched blocks its thread, and the scheduler takes
//! the processor back from it.
//!
//! They are replaced where they are (host/replace.zig): whoever has imported one before has the
//! replacement, and threads that run no goroutine have the original. A module whose objects look
//! other than expected is left alone, and `reasons` tells why.
const std = @import("std");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const parking = @import("../host/parking.zig");
const replace = @import("../host/replace.zig");
const files = @import("files.zig");
const locks = @import("locks.zig");
const polls = @import("polls.zig");
const queues = @import("queues.zig");
const sleep = @import("sleep.zig");
const sockets = @import("sockets.zig");
const threads = @import("threads.zig");
const tls = @import("tls.zig");

const groups = .{
    .{ "time", sleep },
    .{ "threading", locks },
    .{ "queue", queues },
    .{ "socket", sockets },
    .{ "select", polls },
    .{ "ssl", tls },
    .{ "io", files },
    .{ "os", files.by_number },
    .{ "threads", threads },
};

var is_patched: [groups.len]bool = @splat(false);

/// patch(module, /): None, or why it is left as it is.
pub fn patch(name: *py.Object) ?*py.Object {
    inline for (groups, 0..) |group, i| {
        if (isNamed(name, group[0])) {
            if (is_patched[i]) return py.returnNone();
            const reason = install(group[1]) orelse return null;
            is_patched[i] = reason.len == 0;
            return if (reason.len == 0) py.returnNone() else py.print("{s}", .{reason});
        }
    }
    return unknown(name);
}

/// unpatch(module, /)
pub fn unpatch(name: *py.Object) ?*py.Object {
    inline for (groups, 0..) |group, i| {
        if (isNamed(name, group[0])) {
            if (is_patched[i] and parking.waiting > 0) return py.raise(
                py.exc.runtimeError(),
                "goroutines wait in what is patched: unpatch when no run goes on",
                .{},
            );
            inline for (group[1].all) |each| each.restore();
            is_patched[i] = false;
            return py.returnNone();
        }
    }
    return unknown(name);
}

/// patchable(): their names, and whether each is patched.
pub fn patchable() ?*py.Object {
    const dict = py.PyDict_New() orelse return null;
    inline for (groups, is_patched) |group, patched| {
        const value = if (patched) py.true_() else py.false_();
        if (py.PyDict_SetItemString(dict, group[0], value) != 0) {
            py.decref(dict);
            return null;
        }
    }
    return dict;
}

fn isNamed(name: *py.Object, text: [*:0]const u8) bool {
    return py.isStr(name) and py.PyUnicode_CompareWithASCIIString(name, text) == 0;
}

fn unknown(name: *py.Object) ?*py.Object {
    return py.PyErr_Format(py.exc.valueError(), "golibx patches nothing of a module %R", name);
}

/// Empty if all is replaced, or why not; null with an exception set.
fn install(comptime group: type) ?[]const u8 {
    if (@hasDecl(group, "layoutIsKnown")) {
        if (!(group.layoutIsKnown() orelse return null))
            return "objects of this Python look other than golibx knows them";
    }
    inline for (group.all) |each| each.install() catch |e| switch (e) {
        // This version has no such function: there is nothing to do for it.
        error.Missing => {},
        error.Raised => {
            inline for (group.all) |other| other.restore();
            return null;
        },
    };
    return "";
}
