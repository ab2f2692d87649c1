//! Greenlets in goroutines.
//!
//! The package greenlet keeps what it knows by thread, and switches stacks by copying slices of the
//! present one. So a goroutine that uses greenlets has a thread of its own from its first use on,
//! as if it had called lock_os_thread(). To another goroutine's greenlet, a goroutine's greenlet is
//! on a different thread: greenlet says so itself.
//!
//! The first use is a call of getcurrent(), a new greenlet, or a switch to one. The functions are
//! replaced where they are (replace.zig), and the function of the type that makes one in it and in
//! the classes that have it from there.
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");
const os_thread = @import("os_thread.zig");
const replace = @import("replace.zig");

const lane = &host.the_lane;
const module = "greenlet._greenlet";

inline fn always() bool {
    return lane.live;
}

/// False with an exception set.
fn enter() bool {
    const g = lane.onThread() orelse return true;
    if (g.lock_count > 0) return true;
    _ = lane.here();
    return os_thread.lockFor(goroutine.of(g));
}

fn Entering(comptime path: [:0]const u8) type {
    return struct {
        const Original = replace.Replacement(module, path, always, call);

        fn call(c: replace.Call) ?*py.Object {
            return if (enter()) Original.callOriginal(c) else null;
        }
    };
}

const all =
    [_]type{ Entering("getcurrent"), Entering("greenlet.switch"), Entering("greenlet.throw") };

var plain_new: @FieldType(py.Slots, "tp_new") = null;

fn enteringNew(class: *py.Type, args: *py.Object, kwargs: ?*py.Object) callconv(.c) ?*py.Object {
    if (lane.live and !enter()) return null;
    return plain_new.?(class, args, kwargs);
}

/// lock_for_greenlets(): see golibx._core. Once greenlet has been imported.
pub fn setUp() ?*py.Object {
    inline for (all) |each| {
        each.Original.install() catch |e| if (e == error.Raised) return null;
    }
    const class = replace.classOf(module, "greenlet") orelse return null;
    defer py.decref(class);
    if (plain_new == null) plain_new = py.getSlot(@ptrCast(class), "tp_new");
    if (plain_new == null) return py.returnNone();
    return if (replaceIn(class)) py.returnNone() else null;
}

fn replaceIn(class: *py.Object) bool {
    py.replaceSlot(@ptrCast(class), "tp_new", plain_new, enteringNew);
    const get = py.PyObject_GetAttrString(class, "__subclasses__") orelse return false;
    defer py.decref(get);
    const list = py.call(get, &.{}) orelse return false;
    defer py.decref(list);
    for (0..@intCast(py.PyList_Size(list))) |i| {
        if (!replaceIn(py.PyList_GetItem(list, @intCast(i)).?)) return false;
    }
    return true;
}
