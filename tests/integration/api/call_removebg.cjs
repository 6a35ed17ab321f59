// Call a function of the package remove.bg with the options from stdin, and print its result or errors.
const options = JSON.parse(require("node:fs").readFileSync(0, "utf8"));

require("remove.bg")[process.argv[2]](options).then(
  (result) => console.log(JSON.stringify({ result })),
  (errors) => console.log(JSON.stringify({ errors })),
);
