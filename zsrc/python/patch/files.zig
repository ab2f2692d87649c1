//! Reads of pipes, terminals and the like in goroutines: what has nothing to read parks the
//! goroutine. Files of a disk are always ready, and go to the original, as does a descriptor that
//! does not block, and a call that fails at once, or has nothing to read into.
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
    is: packed struct(c_uint) {
        created: bool,
        readable: bool,
        writable: bool,
        appending: bool,
        _: u28,
    },
};

/// False with an exception set.
fn waitToRead(fd: c_int) bool {
    if (fd < 0 or lane.here() == null) return true;
    while (!os.net.readable(.of(fd))) {
        if (!os.net.readBlocks(.of(fd))) return true;
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
            const reads = file.is.readable and c.names == null and wantsData(c);
            return if (!reads or waitToRead(file.fd)) Replaced.callOriginal(c) else null;
        }

        fn wantsData(c: replace.Call) bool {
            if (comptime std.mem.eql(u8, name, "readinto")) return c.n == 1 and hasRoom(c.args[0]);
            if (comptime std.mem.eql(u8, name, "read")) if (c.n == 1) return isSize(c.args[0]);
            return c.n == 0;
        }
    };
}

/// Of read(): None, and a negative one, are for everything. A 0 waits for nothing.
fn isSize(o: *py.Object) bool {
    return o == py.none() or py.isInt(o) and py.intIn(i64, o) != 0;
}

/// Of readinto().
fn hasRoom(o: *py.Object) bool {
    var view: py.Buffer = undefined;
    if (py.PyObject_GetBuffer(o, &view, py.PyBUF_WRITABLE) != 0) {
        py.PyErr_Clear();
        return false;
    }
    defer py.PyBuffer_Release(&view);
    return view.len > 0;
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
    const reads = isKnown(class, "r") orelse return null;
    return reads and isKnown(class, "w") orelse return null;
}

fn isKnown(class: *py.Object, mode: [:0]const u8) ?bool {
    const path = py.PyUnicode_FromString("/dev/null") orelse return null;
    defer py.decref(path);
    const how = py.PyUnicode_FromString(mode) orelse return null;
    defer py.decref(how);
    const o = py.call(class, &.{ path, how }) orelse return null;
    defer py.decref(o);
    const fileno = py.PyObject_GetAttrString(o, "fileno") orelse return null;
    defer py.decref(fileno);
    const number = py.call(fileno, &.{}) orelse return null;
    defer py.decref(number);
    const file: *const FileIO = @ptrCast(@alignCast(o));
    const is_read = mode[0] == 'r';
    const known = file.fd == py.PyLong_AsLongLong(number) and file.is.readable == is_read and
        file.is.writable != is_read and !file.is.created and !file.is.appending;
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
        const reads = c.n == 2 and c.names == null and (py.intIn(i32, c.args[1]) orelse 0) > 0;
        const fd = if (reads) py.intIn(i32, c.args[0]) else null;
        return if (waitToRead(fd orelse -1)) Read.callOriginal(c) else null;
    }

    /// A descriptor for the child is readable when that has ended.
    fn waitPid(c: replace.Call) ?*py.Object {
        const pid = if (c.n == 2 and c.names == null) py.intIn(i32, c.args[0]) orelse 0 else 0;
        if (pid <= 0 or py.intIn(i32, c.args[1]) != 0 or lane.here() == null)
            return WaitPid.callOriginal(c);
        const no_hang = py.PyLong_FromLongLong(os.net.no_hang) orelse return null;
        defer py.decref(no_hang);
        const args = [_]*py.Object{ c.args[0], no_hang };
        const now: replace.Call = .{ .self = c.self, .args = &args, .n = 2 };
        const found = WaitPid.callOriginal(now) orelse return null;
        if (py.intIn(i32, py.PyTuple_GetItem(found, 0).?) != 0) return found;
        py.decref(found);
        if (os.net.openProcess(pid)) |child| {
            const waited = ready.one(child.fd(), .{ .read = true }, null);
            if (waited == .ready) {
                host.poller.loseEnded(child);
            } else {
                host.poller.loseRange(child.fd(), child.fd() +| 1);
            }
            os.net.close(child);
            if (waited == .raised) return null;
        }
        return WaitPid.callOriginal(c);
    }
};
