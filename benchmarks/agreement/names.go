// Print what Go's own parser says that files define, one line each: path, sort, name, owner, line.
// The names of the files are read from standard input.
package main

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		path := lines.Text()
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			continue
		}
		say := func(sort, name, owner string, at token.Pos) {
			if name != "_" {
				fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%d\n", path, sort, name, owner, set.PositionFor(at, false).Line)
			}
		}
		for _, declaration := range file.Decls {
			switch one := declaration.(type) {
			case *ast.FuncDecl:
				say("function", one.Name.Name, receiver(one), one.Name.Pos())
			case *ast.GenDecl:
				for _, spec := range one.Specs {
					if value, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range value.Names {
							say("value", name.Name, "", name.Pos())
						}
					}
					if named, ok := spec.(*ast.TypeSpec); ok {
						say("type", named.Name.Name, "", named.Name.Pos())
						methods(named, say)
					}
				}
			}
		}
	}
}

// receiver returns the type of a method's receiver.
func receiver(one *ast.FuncDecl) string {
	if one.Recv == nil || len(one.Recv.List) == 0 {
		return ""
	}
	kind := one.Recv.List[0].Type
	for {
		switch inner := kind.(type) {
		case *ast.StarExpr:
			kind = inner.X
		case *ast.ParenExpr:
			kind = inner.X
		case *ast.IndexExpr:
			kind = inner.X
		case *ast.IndexListExpr:
			kind = inner.X
		case *ast.Ident:
			return inner.Name
		default:
			return ""
		}
	}
}

// methods says the methods that an interface asks for.
func methods(named *ast.TypeSpec, say func(sort, name, owner string, at token.Pos)) {
	if asked, ok := named.Type.(*ast.InterfaceType); ok {
		for _, field := range asked.Methods.List {
			for _, name := range field.Names {
				say("function", name.Name, named.Name.Name, name.Pos())
			}
		}
	}
}
