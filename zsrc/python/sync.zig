//! The types of golibx.sync beside WaitGroup, as the extension module adds them.
const py = @import("py.zig");
const mutex = @import("mutex.zig");
const rwmutex = @import("rwmutex.zig");
const cond = @import("cond.zig");
const once = @import("once.zig");
const semaphore = @import("semaphore.zig");
const event = @import("event.zig");
const barrier = @import("barrier.zig");
const pool = @import("pool.zig");
const atomic = @import("atomic.zig");

/// What `add` is to make, and where to keep it.
const Type = struct { [*:0]const u8, **py.Type, *const py.TypeSpec };

const types = [_]Type{
    .{ "Mutex", &mutex.mutex_type, &mutex.spec },
    .{ "Guard", &mutex.guard_type, &mutex.guard_spec },
    .{ "RWMutex", &rwmutex.rwmutex_type, &rwmutex.spec },
    .{ "RLocker", &rwmutex.reader_type, &rwmutex.reader_spec },
    .{ "Cond", &cond.cond_type, &cond.spec },
    .{ "Once", &once.once_type, &once.spec },
    .{ "Semaphore", &semaphore.semaphore_type, &semaphore.spec },
    .{ "Event", &event.event_type, &event.spec },
    .{ "Barrier", &barrier.barrier_type, &barrier.spec },
    .{ "Pool", &pool.pool_type, &pool.spec },
    .{ "AtomicInt", &atomic.atomic_type, &atomic.spec },
};

/// Whether goroutines wait on objects of that type until another calls a method.
pub fn waitsOn(t: *py.Type) bool {
    for (types) |each| if (each[1].* == t) return true;
    return false;
}

/// What an object of theirs holds that is no business of the collector's: they cannot be in a cycle.
pub fn heldBy(o: *py.Object) ?*py.Object {
    if (o.type == rwmutex.reader_type) return rwmutex.mutexOf(o);
    if (o.type == cond.cond_type) return cond.lockerOf(o);
    return null;
}

/// Adds them to the module by `addType`. False with an exception set.
pub fn add(
    module: *py.Object,
    comptime addType: fn (*py.Object, [*:0]const u8, *const py.TypeSpec) ?*py.Type,
) bool {
    for (types) |t| t[1].* = addType(module, t[0], t[2]) orelse return false;
    return true;
}
