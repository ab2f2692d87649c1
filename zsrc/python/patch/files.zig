//! Reads of pipes, terminals and the like in goroutines: what has nothing to read parks the
//! goroutine. Files of a disk are always ready, and go to the original, as does a descriptor that
//! does not block.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const identity = @import("../host/identity.zig");
const replace = @import("../host/replace.zig");
const ready = @import("ready.zig");

const lane = &host.the_lane;
const in = identity.inGoroutine;

/// fileio of Modules/_io/fileio.c, 3.11 to 3.15.
const FileIO = extern struct {
    ob: py.Object,
    fd: c_int,
};

/// False with an exception set.
fn waitToRead(fd: c_int) bool {
    if (fd < 0 or lane.here() == null) return true;
    while (!os.net.readable(.of(fd))) {
        if (!os.net.isBlocking(.of(fd))) return true;
        switch (ready.one(fd, .{ .read = true }, null)) {
            .ready => {},
            .unwatched => return true,
            .raised, .timeout => return false,
        }
    }
    return true;
}

fn Reading(comptime name: [:0]const u8) type {
    return struct {
        const Replaced = replace.Replacement("_io", "FileIO." ++ name, in, call);

        fn call(c: replace.Call) ?*py.Object {
            const file: *FileIO = @ptrCast(@alignCast(c.self.?));
            return if (waitToRead(file.fd)) Replaced.callOriginal(c) else null;
        }
    };
}

pub const all = .{
    Reading("read").Replaced,
    Reading("readinto").Replaced,
    Reading("readall").Replaced,
};

/// Looks at one. Null with an exception set.
pub fn layoutIsKnown() ?bool {
    const class = replace.classOf("_io", "FileIO") orelse return null;
    defer py.decref(class);
    const path = py.PyUnicode_FromString("/dev/null") orelse return null;
    defer py.decref(path);
    const o = py.call(class, &.{path}) orelse return null;
    defer py.decref(o);
    const fileno = py.PyObject_GetAttrString(o, "fileno") orelse return null;
    defer py.decref(fileno);
    const number = py.call(fileno, &.{}) orelse return null;
    defer py.decref(number);
    const file: *const FileIO = @ptrCast(@alignCast(o));
    const known = file.fd == py.PyLong_AsLongLong(number);
    const close = py.PyObject_GetAttrString(o, "close") orelse return null;
    defer py.decref(close);
    py.decref(py.call(close, &.{}) orelse return null);
    return known;
}

/// os.read() and os.waitpid().
pub const by_number = struct {
    const Read = replace.Replacement("posix", "read", in, read);
    const WaitPid = replace.Replacement("posix", "waitpid", in, waitPid);
    pub const all = .{ Read, WaitPid };

    fn read(c: replace.Call) ?*py.Object {
        const fd = if (c.n == 2 and c.names == null) numberIn(c.args[0]) else null;
        return if (waitToRead(fd orelse -1)) Read.callOriginal(c) else null;
    }

    /// A descriptor for the child is readable when that has ended.
    fn waitPid(c: replace.Call) ?*py.Object {
        const pid = if (c.n == 2 and c.names == null) numberIn(c.args[0]) orelse 0 else 0;
        if (pid <= 0 or numberIn(c.args[1]) != 0 or lane.here() == null)
            return WaitPid.callOriginal(c);
        const no_hang = py.PyLong_FromLongLong(os.net.no_hang) orelse return null;
        defer py.decref(no_hang);
        const args = [_]*py.Object{ c.args[0], no_hang };
        const now: replace.Call = .{ .self = c.self, .args = &args, .n = 2 };
        const found = WaitPid.callOriginal(now) orelse return null;
        if (numberIn(py.PyTuple_GetItem(found, 0).?) != 0) return found;
        py.decref(found);
        if (os.net.openProcess(pid)) |child| {
            const waited = ready.one(child.fd(), .{ .read = true }, null);
            host.poller.loseRange(child.fd(), child.fd() +| 1);
            os.net.close(child);
            if (waited == .raised) return null;
        }
        return WaitPid.callOriginal(c);
    }

    fn numberIn(o: *py.Object) ?i32 {
        if (!py.isInt(o)) return null;
        const value = py.PyLong_AsLongLong(o);
        if (value == -1 and py.PyErr_Occurred() != null) py.PyErr_Clear();
        return std.math.cast(i32, value);
    }
};
