//! Code of others on a goroutine's stack, and what that means when the goroutine is switched out.
//!
//! Calls from Python to Python take no C stack. What lies between a call to golibx and the
//! goroutine's own evaluation loop are C functions that called back into Python: sort(), partial(),
//! next() and others of the interpreter's, which know of no thread, or those of an extension or
//! a library, which may keep something of the thread's for the time of their call: PyO3's count of
//! attachments, scipy's callback, SQLite's mutexes. A goroutine that is switched out with such ones
//! below it keeps its thread (serial/keeping.zig).
//!
//! The compilers' unwind tables tell exactly which calls those are, in microseconds. What was found
//! is remembered as a chain: where on the stack the return addresses were, and what they were.
//! Since a function's frame has one size at any of its calls, the same addresses in the same places
//! are the same calls. Comparing takes a nanosecond or two for each.
//!
//! A goroutine that runs a function in Python has one outermost evaluation loop from its beginning
//! to its end, with nothing but golibx's and the interpreter's frames below (its root). So only
//! what lies above the root needs to be compared, once all was: four or five addresses for a call
//! from map() or partial(). A chain that begins in the root is a plain call: another one with the
//! same frame comes from the same place, so that it need not be compared at all (G.plain_frame).
//! Where the loop calls by a function of its own, as on 3.15, that one's address needs to be
//! (G.near_frame).
//!
//! A goroutine that runs a C function has no such loop: reduce() may call one after the other.
//!
//! Another design was rejected: to look for addresses of foreign code among all words of the stack.
//! It takes no tables, but what earlier calls left behind looks like calls too.
//!
//! The `_io` module's buffered readers and writers are the interpreter's own, but do know their
//! thread: buffered.zig counts calls that are in the middle of one.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const goroutine = @import("goroutine.zig");

const PyG = goroutine.PyG;
const lane = &host.the_lane;

/// What is loaded from one file.
pub const Module = struct {
    base: usize,
    /// Of the file.
    path: [:0]const u8,
    keeps: bool,

    /// For people: the file without its folders.
    pub fn name(m: *const Module) [:0]const u8 {
        const at = std.mem.lastIndexOfAny(u8, m.path, "/\\") orelse return m.path;
        return m.path[at + 1 ..];
    }
};

/// As [runtime] foreign says.
pub var policy: enum { keep, move } = .keep;
/// Names of modules that know of no thread, one after the other, each with a comma behind.
var movable: std.ArrayList(u8) = .empty;

const Link = struct { offset: u32, address: usize };

/// Calls from golibx's outwards, to the first foreign one or the goroutine's first.
const Chain = struct {
    /// Where the innermost lies, from the end of the stack.
    distance: usize,
    /// Null if nothing keeps the thread.
    kept_by: ?*const Module,
    /// Which one is in the goroutine's outermost loop, if it has one and that can be told.
    root: ?u32,
    links: []const Link,
};

/// Of a goroutine: what was last found below its calls, if that keeps no thread.
pub const Seen = struct {
    /// Of golibx's outermost call; 0 for nothing.
    frame: usize = 0,
    /// The same calls lie there if these do. They are a chain's: gone when one is.
    links: []const Link = &.{},
    chains_freed: usize = 0,
    /// Its function runs, and has one outermost loop.
    has_root: bool = false,
};

/// Before the goroutine's function is called.
pub inline fn enterBody(p: *PyG) void {
    forgetCalls(p);
    p.seen.has_root = p.runs_python;
}

/// And after: what else it runs may have one loop after another.
pub inline fn leaveBody(p: *PyG) void {
    forgetCalls(p);
    p.seen.has_root = false;
}

inline fn forgetCalls(p: *PyG) void {
    p.g.plain_frame = 0;
    p.g.near_frame = 0;
    p.g.deep_frame = 0;
    p.seen.frame = 0;
}

const most_links = 1024;
/// Chains by where they begin, in buckets. The oldest of a bucket goes first.
const bucket_count = 256; // a power of two
const Bucket = struct { chains: [4]?*Chain = @splat(null), oldest: u8 = 0 };
var buckets: [bucket_count]Bucket = @splat(.{});
var chains_freed: usize = 0;

/// By return address.
var modules_of: std.AutoHashMapUnmanaged(usize, *const Module) = .empty;
var modules: std.ArrayList(*const Module) = .empty;
/// golibx's own code, as far as it was seen.
var own_low: usize = std.math.maxInt(usize);
var own_high: usize = std.math.maxInt(usize);
var own_base: usize = 0;
/// Addresses that are not golibx's, where golibx was last called from: to ask takes microseconds.
var others: [256]usize = @splat(0);
var interpreter_base: usize = 0;
/// The evaluation loop, and the function that calls it for a Python function; 0 where that is not
/// exported.
var looked_up = false;
var loop_function: usize = 0;
var vectorcall_function: usize = 0;
/// A root calls no more of the interpreter's functions below it than these, itself included: what
/// a function, a method or a partial function is called by.
const most_root_links = 4;

/// What code of no file is: an interpreter that compiles, trampolines.
const unknown: Module = .{ .base = 0, .path = "code without a file", .keeps = true };
const switched: Module = .{ .base = 0, .path = "another stack", .keeps = true };
const buffered: Module = .{ .base = 0, .path = "a buffered file", .keeps = true };
const untold: Module = .{ .base = 0, .path = "calls that cannot be told", .keeps = true };

/// Extension modules of the interpreter's own that hold things of threads or libraries that do.
const keepers =
    [_][]const u8{ "_sqlite3.", "_ctypes.", "_tkinter.", "_ssl.", "readline.", "_curses." };

/// Before a run. `names` is a tuple of modules that may move; false with an exception set.
pub fn startRun(names: ?*py.Object, moves: bool) bool {
    forget();
    if (!looked_up) lookUp();
    policy = if (moves) .move else .keep;
    movable.clearRetainingCapacity();
    const tuple = names orelse return true;
    for (0..@intCast(py.PyTuple_Size(tuple))) |i| {
        var len: py.Ssize = 0;
        const text =
            py.PyUnicode_AsUTF8AndSize(py.PyTuple_GetItem(tuple, @intCast(i)).?, &len) orelse
            return false;
        // As a file's name, and as a module's.
        for (0..2) |_| {
            movable.appendSlice(host.gpa, text[0..@intCast(len)]) catch return noMemory();
            movable.append(host.gpa, ',') catch return noMemory();
        }
        const module = movable.items[movable.items.len - @as(usize, @intCast(len)) - 1 ..];
        std.mem.replaceScalar(u8, module, '.', '/');
    }
    return true;
}

fn lookUp() void {
    looked_up = true;
    loop_function = @intFromPtr(os.symbol("_PyEval_EvalFrameDefault"));
    vectorcall_function = @intFromPtr(os.symbol("_PyFunction_Vectorcall"));
    if (vectorcall_function != 0) return;
    // Any function in Python tells, too.
    const ask = py.extra.PyVectorcall_Function orelse return;
    const function = py.importFrom("golibx.frames", "is_own") orelse return py.PyErr_Clear();
    defer py.decref(function);
    if (py.isFunction(function)) vectorcall_function = @intFromPtr(ask(function));
}

fn noMemory() bool {
    _ = py.PyErr_NoMemory();
    return false;
}

/// Which modules keep a thread may be another matter in the next run.
fn forget() void {
    for (&buckets) |*bucket| {
        for (bucket.chains) |chain| if (chain) |c| freeChain(c);
        bucket.* = .{};
    }
    modules_of.clearRetainingCapacity();
    for (modules.items) |m| {
        host.gpa.free(m.path);
        host.gpa.destroy(m);
    }
    modules.clearRetainingCapacity();
}

fn freeChain(chain: *Chain) void {
    chains_freed += 1;
    host.gpa.free(chain.links);
    host.gpa.destroy(chain);
}

/// Whether the calling goroutine, which is about to be switched out, has something below that keeps
/// its thread.
pub noinline fn keepsThread(p: *PyG) bool {
    // Usually the same calls as last time lie below. Not seen as golibx's own may be one of its
    // functions that has not been met yet: then nothing is found here.
    var frame = word(@frameAddress()); // golibx's, which calls this
    while (isKnownOwn(word(frame + @sizeOf(usize)))) frame = word(frame);
    if (frame == p.g.plain_frame) return false;
    return !wasSeen(p, frame) and keepsThreadSlow(p, frame);
}

/// Whether the calls below that frame are those that were last found to keep no thread.
pub noinline fn wasSeen(p: *const PyG, frame: usize) bool {
    return p.buffered == null and frame == p.seen.frame and p.seen.chains_freed == chains_freed and
        matches(p.seen.links, frame + @sizeOf(usize));
}

noinline fn keepsThreadSlow(p: *PyG, frame: usize) bool {
    if (policy == .move) return false;
    const by = keeper(p, frame);
    p.kept_by = by;
    return by != null;
}

/// `own_frame` is one of golibx's, which are built with frame pointers.
fn keeper(p: *PyG, own_frame: usize) ?*const Module {
    if (p.buffered != null) return &buffered;
    const stack = p.g.stack;
    var frame = own_frame;
    // The innermost call that is not golibx's.
    while (true) {
        // A library like greenlet gave the goroutine another stack for now.
        if (!stack.contains(frame)) return &switched;
        if (!isOwn(word(frame + @sizeOf(usize)))) break;
        frame = word(frame);
    }
    const slot = frame + @sizeOf(usize);
    const distance = stack.hi() - slot;
    const bucket = &buckets[(distance / @sizeOf(usize) ^ word(slot)) % bucket_count];
    const chain = for (bucket.chains) |each| {
        const known = each orelse continue;
        if (known.distance == distance and matches(known.links, slot)) break known;
    } else new: {
        const new = follow(stack, slot) orelse return &untold;
        const place = &bucket.chains[bucket.oldest];
        bucket.oldest = (bucket.oldest + 1) % @as(u8, bucket.chains.len);
        if (place.*) |old| freeChain(old);
        place.* = new;
        break :new new;
    };
    if (chain.kept_by) |module| return module;
    const root = if (p.seen.has_root) chain.root else null;
    if (root == 0) {
        p.g.plain_frame = frame;
    } else {
        p.seen.frame = frame;
        p.seen.links = if (root) |at| chain.links[0 .. at + 1] else chain.links;
        p.seen.chains_freed = chains_freed;
        if (root == 1) {
            p.g.deep_frame = 0;
            p.g.near_frame = frame;
            p.g.near_return = word(slot);
        }
    }
    return null;
}

inline fn word(address: usize) usize {
    return @as(*const usize, @ptrFromInt(address)).*;
}

/// All of them lie on the stack, whether the first ones match or not.
inline fn matches(links: []const Link, slot: usize) bool {
    var left = links;
    var differences: usize = 0;
    while (left.len >= at_once) : (left = left[at_once..])
        inline for (0..at_once) |i| {
            differences |= word(slot + left[i].offset) ^ left[i].address;
        };
    for (left) |link| differences |= word(slot + link.offset) ^ link.address;
    return differences == 0;
}

const at_once = 4;

inline fn isKnownOwn(address: usize) bool {
    return address -% own_low <= own_high -% own_low;
}

inline fn isOwn(address: usize) bool {
    if (isKnownOwn(address)) return true;
    return others[address / 4 % others.len] != address and isOwnSlow(address);
}

/// A file's code lies in one piece: what is between two addresses of golibx's is golibx's.
noinline fn isOwnSlow(address: usize) bool {
    if (own_base == 0) own_base = baseOf(@intFromPtr(&keepsThread)) orelse return false;
    if (baseOf(address) != own_base) {
        others[address / 4 % others.len] = address;
        return false;
    }
    const is_first = own_low == std.math.maxInt(usize);
    own_low = @min(own_low, address);
    own_high = if (is_first) address else @max(own_high, address);
    return true;
}

fn baseOf(address: usize) ?usize {
    const place = os.placeOf(address) orelse return null;
    return address - place.offset;
}

// ---- a chain that is not known yet ----

const Collector = struct {
    stack: @import("../../serial/g.zig").Stack,
    /// Of the innermost call that counts.
    slot: usize,
    links: std.ArrayList(Link) = .empty,
    kept_by: ?*const Module = null,
    /// Of each link. Null where it is golibx's own.
    functions: std.ArrayList(?usize) = .empty,
    /// All calls were seen, or enough of them.
    complete: bool = false,

    fn visit(raw: *anyopaque, call: os.Call) bool {
        const c: *Collector = @ptrCast(@alignCast(raw));
        if (call.slot < c.slot) return true;
        if (!c.stack.contains(call.slot) or call.slot % @sizeOf(usize) != 0) return false;
        if (word(call.slot) != call.return_address and !signed) return false;
        if (c.links.items.len == 0 and call.slot != c.slot) return false;
        if (c.links.items.len == most_links) return false;
        c.links.append(host.gpa, .{
            .offset = @intCast(call.slot - c.slot),
            .address = word(call.slot),
        }) catch return false;
        if (call.function == @intFromPtr(&host.Lane.entry)) {
            c.complete = true;
            return false;
        }
        c.functions.append(host.gpa, if (isOwn(call.return_address)) null else call.function) catch
            return false;
        const module = moduleOf(call.return_address);
        if (module.keeps) {
            c.kept_by = module;
            c.complete = true;
            return false;
        }
        return true;
    }

    /// The link in the outermost loop. Null where it is not certain which that is: compilers divide
    /// the loop's function, and its symbol is only one part's, but all have one frame.
    fn findRoot(c: *const Collector) ?u32 {
        if (c.kept_by != null) return null;
        const functions = c.functions.items;
        var last: ?usize = null;
        for (0..functions.len) |at| if (c.isInLoop(at)) {
            last = at;
        };
        const root = last orelse return null;
        var interpreter_links: u32 = 0;
        for (functions[root..], root..) |function, at| {
            if (function == null) continue;
            interpreter_links += 1;
            if (at != root and c.frameSize(at) == c.frameSize(root)) return null;
        }
        return if (interpreter_links <= most_root_links) @intCast(root) else null;
    }

    fn isInLoop(c: *const Collector, at: usize) bool {
        const functions = c.functions.items;
        if (functions[at] == null) return false;
        if (loop_function != 0 and functions[at] == loop_function) return true;
        return vectorcall_function != 0 and
            at + 1 < functions.len and functions[at + 1] == vectorcall_function;
    }

    /// Of the function that the link is in. There is another one behind: golibx's first.
    fn frameSize(c: *const Collector, at: usize) u32 {
        return c.links.items[at + 1].offset - c.links.items[at].offset;
    }
};

/// Return addresses on the stack may have a signature in their upper bits.
const signed = @import("builtin").cpu.arch == .aarch64;

/// Null where the calls cannot be told.
fn follow(stack: @import("../../serial/g.zig").Stack, slot: usize) ?*Chain {
    var c: Collector = .{ .stack = stack, .slot = slot };
    defer c.links.deinit(host.gpa);
    defer c.functions.deinit(host.gpa);
    if (!os.eachCall(&c, Collector.visit) or !c.complete) return null;
    const chain = host.gpa.create(Chain) catch return null;
    chain.* = .{
        .distance = stack.hi() - slot,
        .kept_by = c.kept_by,
        .root = c.findRoot(),
        .links = c.links.toOwnedSlice(host.gpa) catch {
            host.gpa.destroy(chain);
            return null;
        },
    };
    return chain;
}

fn moduleOf(address: usize) *const Module {
    if (modules_of.get(address)) |known| return known;
    const place = os.placeOf(address) orelse return &unknown;
    const base = address - place.offset;
    const module = for (modules.items) |m| {
        if (m.base == base) break m;
    } else newModule(base, std.mem.span(place.file)) catch return &unknown;
    modules_of.put(host.gpa, address, module) catch {};
    return module;
}

fn newModule(base: usize, path: []const u8) error{OutOfMemory}!*const Module {
    if (interpreter_base == 0) interpreter_base = baseOf(@intFromPtr(&py.PyErr_Occurred)) orelse 0;
    const m = try host.gpa.create(Module);
    errdefer host.gpa.destroy(m);
    try modules.ensureUnusedCapacity(host.gpa, 1);
    m.* = .{
        .base = base,
        .path = try host.gpa.dupeSentinel(u8, path, 0),
        .keeps = !mayMove(base, path),
    };
    modules.appendAssumeCapacity(m);
    return m;
}

fn mayMove(base: usize, path: []const u8) bool {
    if (base == own_base or base == interpreter_base) return true;
    var names = std.mem.tokenizeScalar(u8, movable.items, ',');
    while (names.next()) |each| if (isNamed(path, each)) return true;
    if (std.mem.indexOf(u8, path, "/lib-dynload/") == null) return false;
    const file = path[std.mem.lastIndexOfScalar(u8, path, '/').? + 1 ..];
    for (keepers) |each| if (std.mem.startsWith(u8, file, each)) return false;
    return true;
}

/// Whether a module's name, with slashes for dots, is the file's or one of its folders', or the
/// file is named as it is.
fn isNamed(path: []const u8, name: []const u8) bool {
    var from: usize = 0;
    while (std.mem.indexOfPos(u8, path, from, name)) |at| : (from = at + 1) {
        const end = at + name.len;
        if (at == 0 or path[at - 1] != '/') continue;
        if (end == path.len or path[end] == '/' or path[end] == '.') return true;
    }
    return false;
}

test "a module is named by its file or a folder" {
    const path = "/x/site-packages/numpy/random/_mt19937.cpython-313-x86_64-linux-gnu.so";
    for ([_][]const u8{ "numpy", "numpy/random", "numpy/random/_mt19937", "_mt19937" }) |name|
        try std.testing.expect(isNamed(path, name));
    for ([_][]const u8{ "umpy", "numpy/ran", "_mt1993", "x86_64", "so" }) |name|
        try std.testing.expect(!isNamed(path, name));
    for ([_][]const u8{ "libsqlite3", "libsqlite3.so.0" }) |name|
        try std.testing.expect(isNamed("/usr/lib/libsqlite3.so.0", name));
}
