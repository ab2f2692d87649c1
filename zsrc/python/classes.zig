//! The classes of the extension module: the one list of them, in the order in which the module gets
//! its types. A class comes behind those that it derives from.
const py = @import("py.zig");
const context = @import("context.zig");
const native_chan = @import("native_chan.zig");
const mutex = @import("mutex.zig");
const timer = @import("timer.zig");
const views = @import("chan_views.zig");
const rwmutex = @import("rwmutex.zig");

pub const all = .{
    context.Class,
    context.RegistrationClass,
    @import("signals.zig").Class,
    @import("whole.zig").Class,
    @import("handle.zig").Class,
    views.BaseClass,
    views.SendClass,
    views.RecvClass,
    @import("chan.zig").Class,
    timer.ChanClass,
    @import("select.zig").Class,
    timer.Class,
    timer.TickerClass,
    @import("waitgroup.zig").Class,
    mutex.Class,
    mutex.GuardClass,
    rwmutex.Class,
    rwmutex.ReaderClass,
    @import("cond.zig").Class,
    @import("once.zig").Class,
    @import("semaphore.zig").Class,
    @import("event.zig").Class,
    @import("barrier.zig").Class,
    @import("pool.zig").Class,
    @import("atomic.zig").Class,
    @import("native.zig").Class,
    native_chan.Class,
    native_chan.BufferClass,
    @import("socket.zig").Class,
};

pub fn has(comptime Class: type) bool {
    for (all) |each| if (each == Class) return true;
    return false;
}

/// Adds the types to the module. False with an exception set.
pub fn add(module: *py.Object) bool {
    inline for (all) |class| if (!class.add(module)) return false;
    return true;
}

/// Whether goroutines wait on objects of that type until somebody who has the object wakes them.
pub fn isWaitedOn(t: *py.Type) bool {
    inline for (all) |class| if (class.is_waited_on and class.python_type == t) return true;
    return false;
}

/// What an object holds that the collector does not know of: see Options.held.
pub fn heldBy(o: *py.Object) ?*py.Object {
    inline for (all) |class| {
        if (class.held) |held| if (class.is(o)) return held(class.of(o));
    }
    return null;
}
