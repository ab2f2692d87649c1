//! What the runtime asks of an operating system, and nothing else: threads, futexes, memory,
//! clocks, the poller's wake-up, thread-specific slots and the fault handler. One file an OS, all
//! with the same declarations; `required` lists them, and a missing one stops the build.
const std = @import("std");
const builtin = @import("builtin");

pub const impl = switch (builtin.os.tag) {
    .linux => @import("linux.zig"),
    .macos => @import("macos.zig"),
    .windows => @import("windows.zig"),
    else => |tag| @compileError("golibx does not know " ++ @tagName(tag)),
};

const required = [_][]const u8{
    "Thread",     "spawn",           "threadExitHere",       "futexWait",      "futexWake",
    "nanotime",   "sleepNs",         "cpuCount",             "page_size",      "reserve",
    "release",    "discard",         "guard",                "slotGet",        "slotSet",
    "findSlot",   "symbol",          "FaultStack",           "handleFault",    "writeStderr",
    "openStack",  "preciseSleep",    "promptWake",           "allocatedSize",  "thisThread",
    "interrupt",  "allowInterrupts", "SignalMask",           "signalMask",     "cpuQuota",
    "peek",       "threadId",        "threadIds",            "onMainThread",   "threadCpuTime",
    "unguard",    "opens_guards",    "processId",            "takeSignal",     "writeSignals",
    "atFork",     "exitProcess",     "stackOf",              "endByInterrupt", "askForMask",
    "sameMask",   "awaitMasks",      "letInterruptsThrough", "passSignals",    "setMask",
    "Promptness",
};

comptime {
    for (required) |name| {
        if (!@hasDecl(impl, name)) @compileError("os layer lacks " ++ name);
    }
}

pub const Handle = @import("handle.zig").Handle;
pub const descriptors = @import("descriptors.zig");
/// Socket calls that do not wait.
pub const net = switch (builtin.os.tag) {
    .linux, .macos => @import("net_posix.zig"),
    else => @import("net_none.zig"),
};

/// How others ask what the process does.
pub const requests = switch (builtin.os.tag) {
    .linux => @import("requests_linux.zig"),
    else => @import("requests_none.zig"),
};

/// Calls between libraries.
pub const imports = switch (builtin.os.tag) {
    .linux => @import("imports_linux.zig"),
    else => @import("imports_none.zig"),
};

/// Libraries' data.
pub const segments = switch (builtin.os.tag) {
    .linux => @import("segments_linux.zig"),
    else => @import("segments_none.zig"),
};

/// Where code lies.
pub const code = switch (builtin.os.tag) {
    .linux => @import("code_linux.zig"),
    else => @import("code_none.zig"),
};

/// How a futex wait ended. `interrupted` means a signal handler ran.
pub const Wake = enum { woken, timeout, interrupted };

pub const Thread = impl.Thread;
pub const spawn = impl.spawn;
pub const thisThread = impl.thisThread;
pub const allowInterrupts = impl.allowInterrupts;
pub const interrupt = impl.interrupt;
pub const signalThread = impl.signalThread;
pub const askForMask = impl.askForMask;
pub const awaitMasks = impl.awaitMasks;
pub const letInterruptsThrough = impl.letInterruptsThrough;
pub const sameMask = impl.sameMask;
pub const setMask = impl.setMask;
pub const SignalMask = impl.SignalMask;
pub const signalMask = impl.signalMask;
pub const futexWait = impl.futexWait;
pub const futexWake = impl.futexWake;
pub const nanotime = impl.nanotime;
pub const sleepNs = impl.sleepNs;
pub const preciseSleep = impl.preciseSleep;
pub const promptWake = impl.promptWake;
pub const Promptness = impl.Promptness;
pub const cpuCount = impl.cpuCount;
pub const cpuQuota = impl.cpuQuota;
pub const threadId = impl.threadId;
pub const processId = impl.processId;
pub const onMainThread = impl.onMainThread;
pub const threadCpuTime = impl.threadCpuTime;
pub const threadIds = impl.threadIds;
pub const page_size = impl.page_size;
pub const reserve = impl.reserve;
pub const allocatedSize = impl.allocatedSize;
pub const openStack = impl.openStack;
pub const release = impl.release;
pub const discard = impl.discard;
pub const guard = impl.guard;
pub const unguard = impl.unguard;
pub const opens_guards = impl.opens_guards;
pub const Disposition = impl.Disposition;
pub const takeSignal = impl.takeSignal;
pub const writeSignals = impl.writeSignals;
pub const passSignals = impl.passSignals;
pub const Slot = impl.Slot;
pub const slotGet = impl.slotGet;
pub const slotSet = impl.slotSet;
pub const findSlot = impl.findSlot;
pub const symbol = impl.symbol;
pub const FaultStack = impl.FaultStack;
pub const handleFault = impl.handleFault;
pub const writeStderr = impl.writeStderr;
pub const peek = impl.peek;
pub const atFork = impl.atFork;
pub const exitProcess = impl.exitProcess;
pub const stackOf = impl.stackOf;
pub const endByInterrupt = impl.endByInterrupt;

/// Told of a memory fault that an instruction caused. True if that can go on.
pub const FaultCallback = *const fn (address: usize) bool;

/// Where an address lies in a library's symbols.
pub const SymbolOf = struct { name: [*:0]const u8, offset: usize };

/// A call on a stack: where it will return to, and where on the stack that is written.
pub const Call = struct { return_address: usize, slot: usize, function: usize };

/// Tells `visit(context, call)` of the calls on the running stack, innermost first, as far as the
/// compilers' unwind tables go, until it answers false. `function` is where the function that is
/// returned to begins. False where there is no unwinder.
pub fn eachCall(context: *anyopaque, visit: *const fn (*anyopaque, Call) bool) bool {
    if (builtin.os.tag == .windows) return false;
    return @import("unwind.zig").eachCall(context, visit);
}

/// The symbol that holds `address`; null where the system knows none.
pub fn symbolOf(address: usize) ?SymbolOf {
    const info = addressInfo(address) orelse return null;
    return .{ .name = info.name orelse return null, .offset = address - @intFromPtr(info.address) };
}

/// The file that an address was loaded from, and where it lies in that.
pub const PlaceOf = struct { file: [*:0]const u8, offset: usize };

pub fn placeOf(address: usize) ?PlaceOf {
    const info = addressInfo(address) orelse return null;
    return .{
        .file = info.file orelse return null,
        .offset = address - @intFromPtr(info.file_base),
    };
}

/// Dl_info of dlfcn.h.
const AddressInfo = extern struct {
    file: ?[*:0]const u8,
    file_base: ?*anyopaque,
    name: ?[*:0]const u8,
    address: ?*anyopaque,
};

fn addressInfo(address: usize) ?AddressInfo {
    const dladdr: *const fn (usize, *AddressInfo) callconv(.c) c_int =
        @ptrCast(@alignCast(symbol("dladdr") orelse return null));
    var info: AddressInfo = undefined;
    return if (dladdr(address, &info) == 0) null else info;
}

pub const SpawnOptions = struct {
    /// It costs address space only; what libraries keep in thread-locals is taken from it.
    stack_size: usize = 1 << 20,
    /// What the thread blocks: what its maker does, everything, so that it gets none of the
    /// process's signals, or a given set.
    signals: union(enum) { inherited, blocked, mask: impl.SignalMask } = .inherited,
};

pub const max_timeout_ns = std.math.maxInt(u63);

/// A note as in Go's runtime: one thread sleeps on it, another wakes it, once a round.
pub const Note = struct {
    word: std.atomic.Value(u32) = .init(empty),

    const empty = 0;
    const woken = 1;
    /// A thread sleeps, or was about to: only then a wake-up takes a system call.
    const slept_on = 2;

    /// What the sleeper reads next is as new as any wake-up that this takes away.
    pub fn clear(n: *Note) void {
        _ = n.word.swap(empty, .seq_cst);
    }

    /// Release pairs with the acquire in `sleep`: what the waker wrote is seen by the sleeper.
    pub fn wake(n: *Note) void {
        if (n.word.swap(woken, .release) == slept_on) futexWake(&n.word, 1);
    }

    pub fn isWoken(n: *const Note) bool {
        return n.word.load(.acquire) == woken;
    }

    /// Returns when woken, at the time-out, or when a signal handler ran on this thread.
    pub fn sleep(n: *Note, timeout_ns: ?u64) Wake {
        while (!n.isWoken()) {
            if (n.word.cmpxchgStrong(empty, slept_on, .acquire, .acquire)) |present| {
                if (present == woken) break;
            }
            switch (futexWait(&n.word, slept_on, timeout_ns)) {
                .woken => {},
                else => |w| return if (n.isWoken()) .woken else w,
            }
        }
        return .woken;
    }
};

/// Whether a thread that runs out of work should look for more on its CPU for a moment before it
/// sleeps: to be woken takes the system tens of microseconds where it has to wake a CPU too. It
/// does so only if its last rests were as short as that, and if there is another CPU for the
/// threads that make the work.
///
/// Where other programs keep the CPUs busy, a thread that looks takes the CPU from the one that it
/// waits for. Then a look is in vain, and yet the sleep after it is short. So a rest with a look in
/// vain tells nothing of the next, and when several in a row were in vain, twice as many short
/// rests as the last time have to go by until the thread looks again.
pub const Rest = struct {
    /// How many more may be in vain.
    credit: u8 = 0,
    /// This rest has had a look, in vain.
    in_vain: bool = false,
    /// So many short rests go by before there is credit again.
    to_wait: u8 = 0,
    /// What `to_wait` was last.
    waited: u8 = 0,

    const most_credit = 3;
    const longest_wait = 63;

    /// Spins for so long; true if `context.isWoken()` was true before the time was up.
    pub fn spin(r: *Rest, context: anytype, spin_ns: u64) bool {
        r.in_vain = false;
        if (r.credit == 0 or spin_ns == 0) return false;
        const until = nanotime() + spin_ns;
        while (true) {
            for (0..16) |_| {
                if (context.isWoken()) {
                    r.credit = most_credit;
                    r.waited = 0;
                    return true;
                }
                std.atomic.spinLoopHint();
            }
            if (nanotime() >= until) break;
        }
        r.in_vain = true;
        r.credit -= 1;
        if (r.credit == 0) {
            r.waited = @min(2 * r.waited + 1, longest_wait);
            r.to_wait = r.waited;
        }
        return false;
    }

    /// What it waited for was not what it spins for.
    pub fn forget(r: *Rest) void {
        r.credit = 0;
    }

    /// After a sleep from `start` on, which another thread ended.
    pub fn slept(r: *Rest, start: u64, spin_ns: u64) void {
        if (r.in_vain or nanotime() -| start >= 2 * spin_ns or cpuCount() == 1) return;
        if (r.to_wait > 0) {
            r.to_wait -= 1;
        } else {
            r.credit = @min(r.credit + 1, most_credit);
        }
    }
};

/// Stops the process with one line. For broken invariants of the runtime, never for bad input.
pub fn fatal(comptime format: []const u8, args: anytype) noreturn {
    @branchHint(.cold);
    var buffer: [512]u8 = undefined;
    const line = std.fmt.bufPrint(&buffer, "golibx: fatal: " ++ format ++ "\n", args) catch
        "golibx: fatal error (message too long)\n";
    writeStderr(line);
    std.c.abort();
}

test "a thread whose looks are in vain looks ever more seldom" {
    const never: Note = .{};
    var woken: Note = .{};
    woken.wake();
    var rest: Rest = .{};
    const hour_ns = 3600 * std.time.ns_per_s; // so that each sleep is short
    // One CPU: it never looks.
    if (cpuCount() == 1) return error.SkipZigTest;
    var looks: usize = 0;
    for (0..400) |_| {
        const had = rest.credit;
        try std.testing.expect(!rest.spin(&never, 1));
        looks += @intFromBool(had > 0);
        rest.slept(nanotime(), hour_ns);
    }
    // After 1, 3, 7, 15, 31, 63, 63 … short rests; one look each, as they have credit for.
    try std.testing.expectEqual(11, looks);
    // One that finds its turn looks at once again, and may be wrong three times.
    while (rest.credit == 0) rest.slept(nanotime(), hour_ns);
    try std.testing.expect(rest.spin(&woken, hour_ns));
    for (0..3) |_| {
        try std.testing.expect(rest.credit > 0);
        try std.testing.expect(!rest.spin(&never, 1));
        rest.slept(nanotime(), hour_ns);
    }
    try std.testing.expectEqual(0, rest.credit);
}

test "a note wakes its sleeper" {
    const T = struct {
        fn waker(arg: ?*anyopaque) void {
            const n: *Note = @ptrCast(@alignCast(arg.?));
            n.wake();
        }
    };
    var n: Note = .{};
    const t = try spawn(T.waker, &n, .{});
    try std.testing.expectEqual(Wake.woken, n.sleep(null));
    t.join();
    n.clear();
    try std.testing.expectEqual(Wake.timeout, n.sleep(1000));
}
