//! select.select(), poll.poll() and epoll.poll() in goroutines: they look, and park the goroutine
//! until one of the files may be ready, or the time is up, and look again.
//!
//! What is asked of a file that the poller does not tell of, such as out-of-band data alone, is
//! left to the original.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const arguments = @import("../arguments.zig");
const identity = @import("../host/identity.zig");
const replace = @import("../host/replace.zig");
const timeouts = @import("../timeouts.zig");
const ready = @import("ready.zig");

const lane = &host.the_lane;
const in = identity.inGoroutine;

/// What is looked at; a list that grows.
const Files = struct {
    few: [8]ready.File = undefined,
    many: []ready.File = &.{},
    len: usize = 0,

    fn add(f: *Files, file: ready.File) error{OutOfMemory}!void {
        if (f.len < f.few.len) {
            f.few[f.len] = file;
        } else {
            if (f.len >= f.many.len) {
                const more = try host.gpa.alloc(ready.File, f.len * 2);
                @memcpy(more[0..f.len], f.items());
                host.gpa.free(f.many);
                f.many = more;
            }
            if (f.len == f.few.len) @memcpy(f.many[0..f.len], &f.few);
            f.many[f.len] = file;
        }
        f.len += 1;
    }

    fn items(f: *const Files) []const ready.File {
        return if (f.len <= f.few.len) f.few[0..f.len] else f.many[0..f.len];
    }

    fn deinit(f: *Files) void {
        host.gpa.free(f.many);
    }
};

const Unit = struct {
    seconds: f64,
    /// What is longer is refused.
    most: f64,
    negative_is_none: bool,
};

/// A time-out of the call's, which is None or a number. Null for what the original is to say
/// something of.
fn limitOf(given: ?*py.Object, unit: Unit) ?timeouts.Limit {
    const value = given orelse return .forever;
    if (value == py.none()) return .forever;
    if (!py.isInt(value) and !py.isFloat(value)) return null;
    const number = py.PyFloat_AsDouble(value);
    if (number == -1 and py.PyErr_Occurred() != null) {
        py.PyErr_Clear();
        return null;
    }
    if (number < 0) return if (unit.negative_is_none) .forever else null;
    if (!(number < unit.most)) return null;
    return timeouts.fromSeconds(number * unit.seconds);
}

/// Looks by `now`, a call of the original that does not wait, until it finds something. `whole` is
/// the call that does. `collect(subject, files)` is false, maybe with an exception set, if what is
/// to be watched can't be. `busy` is 1 while the goroutine is parked.
fn look(
    comptime R: type,
    now: replace.Call,
    whole: replace.Call,
    limit: timeouts.Limit,
    subject: anytype,
    comptime collect: fn (@TypeOf(subject), *Files) bool,
    busy: ?*c_int,
) ?*py.Object {
    const deadline = limit.deadline();
    var files: Files = .{};
    defer files.deinit();
    var collected = false;
    while (true) {
        const found = R.callOriginal(now) orelse return null;
        if (hasAny(found)) return found;
        if (deadline) |d| if (lane.now() >= d) return found;
        py.decref(found);
        if (!collected and !collect(subject, &files)) {
            py.PyErr_Clear();
            return R.callOriginal(whole);
        }
        collected = true;
        if (busy) |b| b.* = 1;
        const ended = ready.any(files.items(), deadline);
        if (busy) |b| b.* = 0;
        switch (ended) {
            .ready => {},
            .timeout => return R.callOriginal(now),
            .raised => return null,
            .unwatched => return R.callOriginal(whole),
        }
    }
}

/// A list, or a tuple of them.
fn hasAny(found: *py.Object) bool {
    if (!py.isTuple(found)) return py.PyList_Size(found) > 0;
    for (0..@intCast(py.PyTuple_Size(found))) |i|
        if (py.PyList_Size(py.PyTuple_GetItem(found, @intCast(i)).?) > 0) return true;
    return false;
}

fn zero() ?*py.Object {
    return py.PyLong_FromLongLong(0);
}

// ---- select() ----

const Select = replace.Replacement("select", "select", in, select);

fn select(c: replace.Call) ?*py.Object {
    if (c.n < 3 or c.n > 4 or c.names != null) return Select.callOriginal(c);
    const limit = limitOf(if (c.n == 4) c.args[3] else null, select_unit) orelse
        return Select.callOriginal(c);
    if (limit == .poll or lane.here() == null) return Select.callOriginal(c);
    // What are no lists may be iterators, which can be read once: the original has those.
    for (c.args[0..3]) |each| if (!py.isList(each)) return Select.callOriginal(c);
    const nothing = zero() orelse return null;
    defer py.decref(nothing);
    const args = [_]*py.Object{ c.args[0], c.args[1], c.args[2], nothing };
    const now: replace.Call = .{ .self = c.self, .args = &args, .n = 4 };
    return look(Select, now, c, limit, c.args, listed, null);
}

const select_unit: Unit = .{ .seconds = 1, .most = 9.2e9, .negative_is_none = false };

fn listed(lists: py.Args, files: *Files) bool {
    return addAll(files, lists[0], .{ .read = true }) and
        addAll(files, lists[1], .{ .write = true }) and py.PyList_Size(lists[2]) == 0;
}

/// False, maybe with an exception set, if one of them is no file, or there is no memory.
fn addAll(files: *Files, list: *py.Object, of: ready.Directions) bool {
    var i: py.Ssize = 0;
    while (i < py.PyList_Size(list)) : (i += 1) {
        const fd = py.PyObject_AsFileDescriptor(py.PyList_GetItem(list, i) orelse return false);
        if (fd < 0) return false;
        files.add(.{ .fd = fd, .of = of }) catch return false;
    }
    return true;
}

// ---- poll objects ----

const Poll = replace.Replacement("select", "poll.poll", in, poll);

/// pollObject of Modules/selectmodule.c, 3.11 to 3.15.
const PollObject = extern struct {
    ob: py.Object,
    /// Of descriptors to events.
    dict: *py.Object,
    is_current: c_int,
    len: c_int,
    files: ?*anyopaque,
    /// 1 while a call of poll() waits: a second one is refused then.
    running: c_int,
};

fn poll(c: replace.Call) ?*py.Object {
    if (c.n > 1 or c.names != null) return Poll.callOriginal(c);
    const limit = limitOf(if (c.n == 1) c.args[0] else null, poll_unit) orelse
        return Poll.callOriginal(c);
    if (limit == .poll or lane.here() == null) return Poll.callOriginal(c);
    const o: *PollObject = @ptrCast(@alignCast(c.self.?));
    const nothing = zero() orelse return null;
    defer py.decref(nothing);
    const now: replace.Call = .{ .self = c.self, .args = &.{nothing}, .n = 1 };
    return look(Poll, now, c, limit, o.dict, registered, &o.running);
}

/// The original has an int of milliseconds.
const int_max = std.math.maxInt(c_int);
const poll_unit: Unit = .{ .seconds = 1e-3, .most = int_max - 1, .negative_is_none = true };

fn registered(dict: *py.Object, files: *Files) bool {
    var at: py.Ssize = 0;
    var key: ?*py.Object = null;
    var value: ?*py.Object = null;
    while (py.PyDict_Next(dict, &at, &key, &value) != 0) {
        const fd = std.math.cast(i32, py.PyLong_AsLongLong(key.?)) orelse return false;
        const events = std.math.cast(i16, py.PyLong_AsLongLong(value.?)) orelse return false;
        const of: ready.Directions = .{
            .read = events & os.net.reading != 0,
            .write = events & os.net.writing != 0,
        };
        if (!of.read and (!of.write or events & ~os.net.writing != 0)) return false;
        files.add(.{ .fd = fd, .of = of }) catch return false;
    }
    return true;
}

// ---- epoll objects ----

const EPoll = replace.Replacement("select", "epoll.poll", in, epoll);

/// pyEpoll_Object of Modules/selectmodule.c, 3.11 to 3.15.
const EPollObject = extern struct {
    ob: py.Object,
    /// Negative when it is closed.
    fd: c_int,
};

const signature: arguments.Signature = .of("poll(timeout=None, maxevents=-1)");

fn epoll(c: replace.Call) ?*py.Object {
    const o: *EPollObject = @ptrCast(@alignCast(c.self.?));
    if (o.fd < 0) return EPoll.callOriginal(c);
    const given = arguments.parse(signature, c.args, c.n, c.names) orelse return null;
    const limit = limitOf(given[0], epoll_unit) orelse return EPoll.callOriginal(c);
    if (limit == .poll or lane.here() == null) return EPoll.callOriginal(c);
    const nothing = zero() orelse return null;
    defer py.decref(nothing);
    const args = [_]*py.Object{ nothing, given[1] orelse nothing };
    const now: replace.Call = .{
        .self = c.self,
        .args = &args,
        .n = if (given[1] == null) 1 else 2,
    };
    return look(EPoll, now, c, limit, o, itself, null);
}

const epoll_unit: Unit = .{
    .seconds = 1,
    .most = int_max / 1000 - 1,
    .negative_is_none = true,
};

fn itself(o: *EPollObject, files: *Files) bool {
    files.add(.{ .fd = o.fd, .of = .{ .read = true } }) catch return false;
    return o.fd >= 0;
}

pub const all = .{ Select, Poll, EPoll };

/// Looks at one of each. Null with an exception set.
pub fn layoutIsKnown() ?bool {
    const module = py.PyImport_ImportModule("select") orelse return null;
    defer py.decref(module);
    const poller = make(module, "poll") orelse return null;
    defer py.decref(poller);
    const register = py.PyObject_GetAttrString(poller, "register") orelse return null;
    defer py.decref(register);
    const fd = py.PyLong_FromLongLong(0) orelse return null;
    defer py.decref(fd);
    const mask = py.PyLong_FromLongLong(os.net.reading) orelse return null;
    defer py.decref(mask);
    py.decref(py.call(register, &.{ fd, mask }) orelse return null);
    const p: *PollObject = @ptrCast(@alignCast(poller));
    if (!py.isDict(p.dict) or py.PyDict_Size(p.dict) != 1) return false;
    if (!(refusesSecond(poller) orelse return null)) return false;
    const watcher = make(module, "epoll") orelse return null;
    defer py.decref(watcher);
    const fileno = py.PyObject_GetAttrString(watcher, "fileno") orelse return null;
    defer py.decref(fileno);
    const number = py.call(fileno, &.{}) orelse return null;
    defer py.decref(number);
    const e: *EPollObject = @ptrCast(@alignCast(watcher));
    return py.PyLong_AsLongLong(number) == e.fd;
}

/// Whether it takes `running` for a call that waits. Null with an exception set.
fn refusesSecond(poller: *py.Object) ?bool {
    const poll_it = py.PyObject_GetAttrString(poller, "poll") orelse return null;
    defer py.decref(poll_it);
    const nothing = zero() orelse return null;
    defer py.decref(nothing);
    const p: *PollObject = @ptrCast(@alignCast(poller));
    if (p.running != 0) return false;
    p.running = 1;
    const found = py.call(poll_it, &.{nothing});
    p.running = 0;
    if (found) |list| {
        py.decref(list);
        return false;
    }
    if (py.PyErr_ExceptionMatches(py.exc.runtimeError()) == 0) return null;
    py.PyErr_Clear();
    return true;
}

fn make(module: *py.Object, name: [*:0]const u8) ?*py.Object {
    const maker = py.PyObject_GetAttrString(module, name) orelse return null;
    defer py.decref(maker);
    return py.call(maker, &.{});
}
