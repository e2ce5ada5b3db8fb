/* Preloaded into a process, this goes wrong at the N-th file operation below one folder, or writes down all of them.
 *
 * Built by the tests with `gcc -shared -fPIC`, armed by the process itself (shim_arm), so that nothing before counts.
 * Modes: k kill before the operation, K kill after it, t write half and be killed, s write half once, S write 7 bytes
 * at a time from there on, e fail once, E fail from there on, a do it and report a failure, r record all.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LONGEST 4096

static char folder[LONGEST];
static char mode = 0;
static int wanted, number, counted, fired, trace = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void shim_arm(const char *below, int how, int at, int error, int trace_to) {
    snprintf(folder, sizeof folder, "%s", below);
    mode = how, wanted = at, number = error, trace = trace_to, counted = fired = 0;
}

int shim_count(void) { return counted; }

int shim_disarm(void) {
    mode = 0;
    return fired;
}

static void say(const char *text, size_t size) {
    while (size > 0) {
        long done = syscall(SYS_write, trace, text, size);
        if (done <= 0) return;
        text += done, size -= (size_t)done;
    }
}

void shim_mark(const char *text) {
    char line[LONGEST];
    if (mode == 'r') say(line, (size_t)snprintf(line, sizeof line, "%d\tmark\t0\t%s\n", counted, text));
}

static int below(const char *path) {
    size_t length = strlen(folder);
    return mode && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static const char *path_of(int descriptor, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, buffer, LONGEST - 1);
    buffer[length > 0 ? length : 0] = 0;
    return buffer;
}

static const char *full(int at, const char *path, char *buffer) {
    char start[LONGEST];
    if (path[0] == '/') return path;
    if (at == AT_FDCWD) {
        if (!getcwd(start, sizeof start)) return path;
    } else {
        path_of(at, start);
    }
    snprintf(buffer, LONGEST, "%.2000s/%.2000s", start, path);
    return buffer;
}

static int hit(void) {
    counted++;
    return counted == wanted || ((mode == 'E' || mode == 'S') && counted >= wanted);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* An operation: its trace is "number<TAB>name<TAB>changes?<TAB>...", written once it has succeeded. */
#define OPERATION(type, failure, call, ...)                                              \
    ({                                                                                   \
        type result;                                                                     \
        int now = hit();                                                                 \
        if (now && mode == 'k') die();                                                   \
        if (now && (mode == 'e' || mode == 'E')) {                                       \
            fired = 1, errno = number, result = failure;                                 \
        } else {                                                                         \
            result = call;                                                               \
            if (now && mode == 'K') die();                                               \
            if (mode == 'r' && result != failure) {                                      \
                int kept = errno;                                                        \
                char line[3 * LONGEST];                                                  \
                say(line, (size_t)snprintf(line, sizeof line, "%d\t", counted));         \
                say(line, (size_t)snprintf(line, sizeof line, __VA_ARGS__));             \
                errno = kept;                                                            \
            } else if (now && mode == 'a') {                                             \
                fired = 1, errno = number, result = failure;                             \
            }                                                                            \
        }                                                                                \
        result;                                                                          \
    })

static int opening(int at, const char *path, int flags, mode_t permission, char *buffer) {
    static int (*real)(int, const char *, int, ...);
    if (!real) real = REAL(openat);
    const char *name = full(at, path, buffer);
    if (!below(name)) return real(at, path, flags, permission);
    return OPERATION(int, -1, real(at, path, flags, permission), "open\t%d\t%d\t%d\t%s\n", !!(flags & O_CREAT), result,
                     flags, name);
}

#define OPEN(name, at_type, at)                                                          \
    int name(at_type const char *path, int flags, ...) {                                 \
        char buffer[LONGEST];                                                            \
        mode_t permission = 0;                                                           \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                           \
            va_list rest;                                                                \
            va_start(rest, flags);                                                       \
            permission = va_arg(rest, mode_t);                                           \
            va_end(rest);                                                                \
        }                                                                                \
        return opening(at, path, flags, permission, buffer);                             \
    }
#define COMMA ,
OPEN(open, , AT_FDCWD)
OPEN(open64, , AT_FDCWD)
OPEN(openat, int directory COMMA, directory)
OPEN(openat64, int directory COMMA, directory)

DIR *opendir(const char *path) {
    char buffer[LONGEST];
    const char *name = full(AT_FDCWD, path, buffer);
    if (!below(name)) return REAL(opendir)(path);
    return OPERATION(DIR *, NULL, REAL(opendir)(path), "list\t0\t%s\n", name);
}

ssize_t read(int descriptor, void *data, size_t size) {
    char buffer[LONGEST];
    if (!mode || !below(path_of(descriptor, buffer))) return syscall(SYS_read, descriptor, data, size);
    return OPERATION(ssize_t, -1, syscall(SYS_read, descriptor, data, size), "read\t0\t%d\n", descriptor);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    char buffer[LONGEST];
    if (!mode || !below(path_of(descriptor, buffer))) return syscall(SYS_write, descriptor, data, size);
    if (mode == 't' || mode == 's' || mode == 'S') {
        int now = hit();
        if (!now) return syscall(SYS_write, descriptor, data, size);
        fired = 1;
        size_t part = mode == 'S' ? (size < 7 ? size : 7) : (size + 1) / 2;
        ssize_t done = syscall(SYS_write, descriptor, data, part);
        if (mode == 't') die();
        return done;
    }
    ssize_t done = OPERATION(ssize_t, -1, syscall(SYS_write, descriptor, data, size), "write\t1\t%d\t", descriptor);
    if (mode == 'r' && done >= 0) {
        char digits[2 * LONGEST + 1];
        for (ssize_t start = 0; start < done; start += LONGEST) {
            int size_now = 0;
            for (ssize_t place = start; place < done && place < start + LONGEST; place++)
                size_now += sprintf(digits + size_now, "%02x", ((const unsigned char *)data)[place]);
            say(digits, (size_t)size_now);
        }
        say("\n", 1);
    }
    return done;
}

#define BY_DESCRIPTOR(name, changes, number)                                             \
    int name(int descriptor) {                                                           \
        char buffer[LONGEST];                                                            \
        if (!mode || !below(path_of(descriptor, buffer))) return (int)syscall(number, descriptor); \
        return OPERATION(int, -1, (int)syscall(number, descriptor), #name "\t%d\t%d\t%s\n", changes, descriptor, buffer); \
    }
BY_DESCRIPTOR(fsync, 1, SYS_fsync)
BY_DESCRIPTOR(fdatasync, 1, SYS_fdatasync)

int close(int descriptor) { /* one that fails has closed all the same, as on Linux */
    char buffer[LONGEST];
    if (!mode || !below(path_of(descriptor, buffer))) return (int)syscall(SYS_close, descriptor);
    if (mode == 'e' || mode == 'E') {
        int now = hit();
        syscall(SYS_close, descriptor);
        return now ? (fired = 1, errno = number, -1) : 0;
    }
    return OPERATION(int, -1, (int)syscall(SYS_close, descriptor), "close\t1\t%d\n", descriptor);
}

static int renaming(int from_at, const char *from, int to_at, const char *to) {
    char one[LONGEST], two[LONGEST];
    const char *before = full(from_at, from, one), *after = full(to_at, to, two);
    if (!below(before) && !below(after)) return (int)syscall(SYS_renameat, from_at, from, to_at, to);
    return OPERATION(int, -1, (int)syscall(SYS_renameat, from_at, from, to_at, to), "rename\t1\t%s\t%s\n", before, after);
}
int rename(const char *from, const char *to) { return renaming(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renaming(from_at, from, to_at, to); }

static int unlinking(int at, const char *path, int flags) {
    char buffer[LONGEST];
    const char *name = full(at, path, buffer);
    if (!below(name)) return (int)syscall(SYS_unlinkat, at, path, flags);
    return OPERATION(int, -1, (int)syscall(SYS_unlinkat, at, path, flags), "unlink\t1\t%s\n", name);
}
int unlink(const char *path) { return unlinking(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinking(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int at, const char *path, int flags) { return unlinking(at, path, flags); }

static int making(int at, const char *path, mode_t permission) {
    char buffer[LONGEST];
    const char *name = full(at, path, buffer);
    if (!below(name)) return (int)syscall(SYS_mkdirat, at, path, permission);
    return OPERATION(int, -1, (int)syscall(SYS_mkdirat, at, path, permission), "mkdir\t1\t%s\n", name);
}
int mkdir(const char *path, mode_t permission) { return making(AT_FDCWD, path, permission); }
int mkdirat(int at, const char *path, mode_t permission) { return making(at, path, permission); }
